//! When calls are due in an open loop: whatever the answers do.

use crate::order::Random;

/// An endless row of due times, ns.
pub struct Pace {
    mean_ns: f64,
    /// Random gaps (Poisson), as from customers who know nothing of each other; else even ones.
    random: Option<Random>,
    next_ns: f64,
}

impl Pace {
    /// *rate* calls a second, from *begin_ns* on.
    pub fn new(rate: f64, poisson: bool, seed: u64, begin_ns: u64) -> Pace {
        let mut pace = Pace {
            mean_ns: 1e9 / rate,
            random: poisson.then(|| Random::new(seed)),
            next_ns: begin_ns as f64,
        };
        pace.pass();
        pace
    }

    pub fn next_ns(&self) -> u64 {
        self.next_ns as u64
    }

    /// On to the next one.
    #[inline]
    pub fn pass(&mut self) {
        self.next_ns += match &mut self.random {
            Some(random) => -(1.0 - random.unit()).ln() * self.mean_ns,
            None => self.mean_ns,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(poisson: bool) -> Vec<f64> {
        let mut pace = Pace::new(1_000.0, poisson, 4, 0);
        let mut before = 0;
        (0..20_000)
            .map(|_| {
                let gap = pace.next_ns() - before;
                before = pace.next_ns();
                pace.pass();
                gap as f64
            })
            .collect()
    }

    #[test]
    fn even_gaps_are_equal() {
        assert!(gaps(false).iter().all(|gap| (gap - 1e6).abs() < 2.0));
    }

    #[test]
    fn poisson_gaps_deviate_as_much_as_they_last() {
        let gaps = gaps(true);
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let square = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean / 1e6 - 1.0).abs() < 0.03, "{mean}");
        assert!((square.sqrt() / 1e6 - 1.0).abs() < 0.05, "{square}");
    }
}
