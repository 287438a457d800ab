//! Which calls are to be made, and since when each is due.

use crate::pace::Pace;
use std::collections::VecDeque;

/// Makes calls until a time or a number; those that must wait keep the time they were due.
pub struct Supply {
    /// Due and not sent, oldest first (but for those that come back).
    waiting: VecDeque<u64>,
    /// None: closed loop, a call is due whenever somebody can take it.
    pace: Option<Pace>,
    /// Calls count from then on, ...
    from_ns: u64,
    /// ... and are made until then, ...
    end_ns: u64,
    /// ... or until so many were made that count.
    left: Option<u64>,
}

impl Supply {
    pub fn new(pace: Option<Pace>, from_ns: u64, end_ns: u64, left: Option<u64>) -> Supply {
        Supply {
            waiting: VecDeque::new(),
            pace,
            from_ns,
            end_ns,
            left,
        }
    }

    /// Before the clock starts nothing is due.
    pub fn none() -> Supply {
        Supply::new(None, 0, 0, None)
    }

    pub fn is_open_loop(&self) -> bool {
        self.pace.is_some()
    }

    /// Whether new calls are made at *at_ns*.
    #[inline]
    pub fn makes(&self, at_ns: u64) -> bool {
        at_ns < self.end_ns && self.left != Some(0)
    }

    /// Whether there is, or will be, anything to send.
    pub fn goes_on(&self, now_ns: u64) -> bool {
        self.makes(now_ns) || !self.waiting.is_empty()
    }

    /// When the next call is due that is not yet; u64::MAX: never.
    pub fn next_ns(&self) -> u64 {
        match self.pace.as_ref().map(Pace::next_ns) {
            Some(next_ns) if self.makes(next_ns) => next_ns,
            _ => u64::MAX,
        }
    }

    /// A call to send now, by when it was due.
    #[inline]
    pub fn take(&mut self, now_ns: u64) -> Option<u64> {
        while self.next_ns() <= now_ns {
            let due_ns = self.next_ns();
            self.spend(due_ns);
            self.waiting.push_back(due_ns);
            if let Some(pace) = &mut self.pace {
                pace.pass();
            }
        }
        if let Some(due_ns) = self.waiting.pop_front() {
            return Some(due_ns);
        }
        if self.pace.is_some() || !self.makes(now_ns) {
            return None;
        }
        self.spend(now_ns);
        Some(now_ns)
    }

    fn spend(&mut self, due_ns: u64) {
        if let Some(left) = &mut self.left
            && due_ns >= self.from_ns
        {
            *left -= 1;
        }
    }

    /// Nobody could take this one.
    pub fn put_back(&mut self, due_ns: u64) {
        self.waiting.push_front(due_ns);
    }

    /// Calls that a server never looked at.
    pub fn come_back(&mut self, again: &mut Vec<u64>) {
        if !again.is_empty() {
            self.waiting.extend(again.drain(..));
        }
    }

    /// A waiting call that was due before *before_ns*, given up.
    pub fn give_up(&mut self, before_ns: u64) -> Option<u64> {
        let overdue = *self.waiting.front()? < before_ns;
        overdue.then(|| self.waiting.pop_front()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_loop_makes_calls_until_its_end() {
        let mut supply = Supply::new(None, 0, 100, None);
        assert_eq!(
            (supply.take(7), supply.take(7), supply.next_ns()),
            (Some(7), Some(7), u64::MAX)
        );
        assert!(supply.take(100).is_none() && !supply.goes_on(100));
    }

    #[test]
    fn only_calls_after_the_warm_up_are_spent() {
        let mut supply = Supply::new(None, 10, u64::MAX, Some(2));
        let taken: Vec<_> = [1, 2, 10, 11, 12]
            .map(|now_ns| supply.take(now_ns))
            .to_vec();
        assert_eq!(taken, [Some(1), Some(2), Some(10), Some(11), None]);
    }

    #[test]
    fn an_open_loop_remembers_when_calls_were_due() {
        let pace = Pace::new(1e9, false, 1, 0); // one a nanosecond
        let mut supply = Supply::new(Some(pace), 0, 5, None);
        assert_eq!(supply.next_ns(), 1);
        assert_eq!(supply.take(100), Some(1));
        supply.put_back(1);
        let taken: Vec<_> = std::iter::from_fn(|| supply.take(100)).collect();
        assert_eq!(taken, [1, 2, 3, 4]);
        assert!(!supply.goes_on(100));
    }

    #[test]
    fn what_comes_back_keeps_its_time_and_is_given_up_in_the_end() {
        let mut supply = Supply::new(None, 0, 10, None);
        supply.come_back(&mut vec![3]);
        assert!(supply.goes_on(50));
        assert_eq!((supply.give_up(3), supply.give_up(4)), (None, Some(3)));
        supply.come_back(&mut vec![4]);
        assert_eq!(supply.take(60), Some(4));
    }
}
