//! When waiting calls become a batch, and how often a busy I/O thread polls its sockets.
//!
//! A turn costs some 200 us, and each of its calls some 8 us more. At half of the calls/s that large
//! turns allow, turns of one call would already need a whole core. When many calls are inside, each
//! of them waits for others anyway. So small batches are then begun at most once in `gap_ns`, and sockets are polled at most
//! once in `POLL_INTERVAL_NS`. One caller, or a few, never wait for either.

use std::sync::atomic::{AtomicI64, Ordering};

/// From this many calls inside, the gateway is busy.
const BUSY_CALLS_MIN: u64 = 16;
/// A batch of this many rows does not wait for more.
const ROWS_ENOUGH: u64 = 32;
/// Under load, wait until a batch holds at least 1/BATCH_SHARE of the calls inside: while one half is
/// scored, the other half gathers.
const BATCH_SHARE: u64 = 2;
/// Shortest time between two polls of the sockets while busy. A few calls arrive in it.
pub const POLL_INTERVAL_NS: i64 = 150_000;

/// Whether so many calls are inside that each of them waits for others.
pub fn is_busy(calls_inside: u64) -> bool {
    calls_inside >= BUSY_CALLS_MIN
}

/// The shortest time between small batches, and when the last batch was taken.
pub struct BatchTiming {
    gap_ns: i64,
    taken_ns: AtomicI64,
}

impl BatchTiming {
    /// Batches may follow each other after `gap_ns`. 0 begins each batch at once.
    pub fn new(gap_ns: i64) -> BatchTiming {
        BatchTiming {
            gap_ns,
            taken_ns: AtomicI64::new(i64::MIN / 2),
        }
    }

    /// Note that a batch was taken.
    pub fn batch_taken(&self, now_ns: i64) {
        self.taken_ns.store(now_ns, Ordering::Relaxed);
    }

    /// When the waiting rows may become a batch. None: now.
    pub fn due_ns(&self, rows_waiting: u64, calls_inside: u64, now_ns: i64) -> Option<i64> {
        // Once every call that is inside waits, no further row can come before an answer goes out.
        let rows_enough = ROWS_ENOUGH.max(calls_inside / BATCH_SHARE).min(calls_inside);
        if rows_waiting >= rows_enough || !is_busy(calls_inside) {
            return None;
        }
        let due_ns = self.taken_ns.load(Ordering::Relaxed) + self.gap_ns;
        (now_ns < due_ns).then_some(due_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_timing_lets_few_calls_through_at_once() {
        let timing = BatchTiming::new(700_000);
        timing.batch_taken(1_000_000);
        assert_eq!(timing.due_ns(ROWS_ENOUGH - 1, BUSY_CALLS_MIN - 1, 1_000_001), None);
    }

    #[test]
    fn batch_timing_delays_a_small_batch_until_the_gap_ends_when_busy() {
        let timing = BatchTiming::new(700_000);
        assert_eq!(timing.due_ns(1, BUSY_CALLS_MIN, 0), None);
        timing.batch_taken(1_000_000);
        assert_eq!(timing.due_ns(1, BUSY_CALLS_MIN, 1_000_001), Some(1_700_000));
        assert_eq!(timing.due_ns(ROWS_ENOUGH - 1, 500, 1_699_999), Some(1_700_000));
        assert_eq!(timing.due_ns(1, BUSY_CALLS_MIN, 1_700_000), None);
    }

    #[test]
    fn batch_timing_lets_enough_rows_through_at_once() {
        let timing = BatchTiming::new(700_000);
        timing.batch_taken(1_000_000);
        assert_eq!(timing.due_ns(ROWS_ENOUGH, ROWS_ENOUGH, 1_000_001), None);
    }

    #[test]
    fn batch_timing_does_not_wait_for_more_calls_than_are_inside() {
        let timing = BatchTiming::new(700_000);
        timing.batch_taken(1_000_000);
        for inside in BUSY_CALLS_MIN..=ROWS_ENOUGH {
            assert_eq!(timing.due_ns(inside, inside, 1_000_001), None);
            assert_eq!(timing.due_ns(inside - 1, inside, 1_000_001), Some(1_700_000));
        }
    }

    #[test]
    fn batch_timing_asks_for_half_of_the_calls_inside_under_load() {
        let timing = BatchTiming::new(700_000);
        timing.batch_taken(1_000_000);
        assert_eq!(timing.due_ns(99, 200, 1_000_001), Some(1_700_000));
        assert_eq!(timing.due_ns(100, 200, 1_000_001), None);
    }

    #[test]
    fn batch_timing_without_a_gap_delays_nothing() {
        let timing = BatchTiming::new(0);
        timing.batch_taken(1_000_000);
        assert_eq!(timing.due_ns(1, 500, 1_000_000), None);
    }
}
