//! Which calls are to be sent, and since when each is due.

use fastrand::Rng;
use std::collections::VecDeque;

/// Random times at which calls are due in an open loop (a Poisson process).
pub struct Arrivals {
    mean_gap_ns: f64,
    next_ns: f64,
    random: Rng,
}

impl Arrivals {
    /// On average `rate` calls a second, from `begin_ns` on.
    pub fn new(rate: f64, begin_ns: u64) -> Arrivals {
        let random = Rng::with_seed(1);
        let mut arrivals = Arrivals { mean_gap_ns: 1e9 / rate, next_ns: begin_ns as f64, random };
        arrivals.advance();
        arrivals
    }

    pub fn next_ns(&self) -> u64 {
        self.next_ns as u64
    }

    #[inline]
    pub fn advance(&mut self) {
        self.next_ns += -(1.0 - self.random.f64()).ln() * self.mean_gap_ns;
    }
}

/// Creates calls until a time or until enough were created. A call that has to wait for a
/// connection keeps the time when it was due.
pub struct Schedule {
    /// When each waiting call was due, oldest first. Retried calls come last.
    waiting: VecDeque<u64>,
    /// None in a closed loop: a call is due whenever a connection can take one.
    arrivals: Option<Arrivals>,
    /// Calls that are due before this belong to the warm-up.
    counted_from_ns: u64,
    end_ns: u64,
    /// Number of counted calls that may still be created. None: as many as there is time for.
    calls_left: Option<u64>,
}

impl Schedule {
    pub fn new(
        arrivals: Option<Arrivals>,
        counted_from_ns: u64,
        end_ns: u64,
        calls_left: Option<u64>,
    ) -> Schedule {
        Schedule { waiting: VecDeque::new(), arrivals, counted_from_ns, end_ns, calls_left }
    }

    pub fn is_open_loop(&self) -> bool {
        self.arrivals.is_some()
    }

    #[inline]
    fn creates_calls_at(&self, at_ns: u64) -> bool {
        at_ns < self.end_ns && self.calls_left != Some(0)
    }

    /// Returns whether calls are waiting or may still be created.
    pub fn has_calls(&self, now_ns: u64) -> bool {
        self.creates_calls_at(now_ns) || !self.waiting.is_empty()
    }

    /// Returns when the next call of an open loop becomes due, or u64::MAX if there is none.
    pub fn next_ns(&self) -> u64 {
        match self.arrivals.as_ref().map(Arrivals::next_ns) {
            Some(next_ns) if self.creates_calls_at(next_ns) => next_ns,
            _ => u64::MAX,
        }
    }

    /// Takes a call that is to be sent now. Returns when it was due.
    #[inline]
    pub fn take(&mut self, now_ns: u64) -> Option<u64> {
        // Create the calls of an open loop that became due in the meantime.
        while self.next_ns() <= now_ns {
            let due_ns = self.next_ns();
            self.count_created(due_ns);
            self.waiting.push_back(due_ns);
            if let Some(arrivals) = &mut self.arrivals {
                arrivals.advance();
            }
        }
        if let Some(due_ns) = self.waiting.pop_front() {
            return Some(due_ns);
        }
        // A closed loop creates a call whenever it is asked for one.
        if self.is_open_loop() || !self.creates_calls_at(now_ns) {
            return None;
        }
        self.count_created(now_ns);
        Some(now_ns)
    }

    #[inline]
    fn count_created(&mut self, due_ns: u64) {
        if let Some(left) = &mut self.calls_left
            && due_ns >= self.counted_from_ns
        {
            *left -= 1;
        }
    }

    /// Puts back a call that no connection could take.
    pub fn put_back(&mut self, due_ns: u64) {
        self.waiting.push_front(due_ns);
    }

    /// Adds calls that the server never processed. Empties `due_ns`.
    pub fn retry(&mut self, due_ns: &mut Vec<u64>) {
        self.waiting.extend(due_ns.drain(..));
    }

    /// Removes a waiting call that was due before `before_ns`.
    pub fn remove_overdue(&mut self, before_ns: u64) -> Option<u64> {
        let overdue = *self.waiting.front()? < before_ns;
        overdue.then(|| self.waiting.pop_front()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_between_arrivals_deviate_as_much_as_they_last() {
        let mut arrivals = Arrivals::new(1_000.0, 0);
        let mut before_ns = 0;
        let gaps: Vec<f64> = std::iter::repeat_with(|| {
            let gap_ns = arrivals.next_ns() - std::mem::replace(&mut before_ns, arrivals.next_ns());
            arrivals.advance();
            gap_ns as f64
        })
        .take(20_000)
        .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let square = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean / 1e6 - 1.0).abs() < 0.03, "{mean}");
        assert!((square.sqrt() / 1e6 - 1.0).abs() < 0.05, "{square}");
    }

    #[test]
    fn a_closed_loop_creates_calls_until_its_end() {
        let mut schedule = Schedule::new(None, 0, 100, None);
        assert_eq!((schedule.take(7), schedule.take(7)), (Some(7), Some(7)));
        assert_eq!(schedule.next_ns(), u64::MAX);
        assert!(schedule.take(100).is_none() && !schedule.has_calls(100));
    }

    #[test]
    fn calls_of_the_warm_up_do_not_count_towards_the_number_of_calls() {
        let mut schedule = Schedule::new(None, 10, u64::MAX, Some(2));
        let taken = [1, 2, 10, 11, 12].map(|now_ns| schedule.take(now_ns));
        assert_eq!(taken, [Some(1), Some(2), Some(10), Some(11), None]);
    }

    #[test]
    fn an_open_loop_keeps_when_its_calls_were_due() {
        let end_ns = 1_000_000; // about 1,000 calls
        let mut expected = Arrivals::new(1e6, 0);
        let mut schedule = Schedule::new(Some(Arrivals::new(1e6, 0)), 0, end_ns, None);
        let first_ns = expected.next_ns();
        assert_eq!(schedule.next_ns(), first_ns);
        assert_eq!(schedule.take(2 * end_ns), Some(first_ns));
        schedule.put_back(first_ns);
        while expected.next_ns() < end_ns {
            assert_eq!(schedule.take(2 * end_ns), Some(expected.next_ns()));
            expected.advance();
        }
        assert!(schedule.take(2 * end_ns).is_none() && !schedule.has_calls(2 * end_ns));
    }

    #[test]
    fn a_retried_call_keeps_its_time_until_it_is_overdue() {
        let mut schedule = Schedule::new(None, 0, 10, None);
        schedule.retry(&mut vec![3]);
        assert!(schedule.has_calls(50));
        assert_eq!((schedule.remove_overdue(3), schedule.remove_overdue(4)), (None, Some(3)));
        schedule.retry(&mut vec![4]);
        assert_eq!(schedule.take(60), Some(4));
    }
}
