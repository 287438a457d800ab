//! When calls that wait make a batch, and when the I/O thread looks again, while many are inside.
//!
//! A batch costs some 200 us and each of its calls some 8: served one by one as they come, half of
//! what a core can answer fills it. Where many calls are inside, each waits for others anyway, so
//! batches of few are begun no more often than every `gap_ns`, and sockets are looked at no more
//! often than every `LOOK_NS`. One caller, or a handful, never waits for either.

use std::sync::atomic::{AtomicI64, Ordering};

/// Calls inside from which on callers are many.
const BUSY_CALLS_MIN: u64 = 16;
/// Rows that are company enough: they are not made to wait for more.
const ROWS_ENOUGH: u64 = 32;
/// And where more are inside, one in so many of the calls: while half are scored, half may gather.
const BATCH_SHARE: u64 = 2;
/// Between the I/O thread's looks at its sockets: a few calls each arrive in it.
pub const POLL_INTERVAL_NS: i64 = 150_000;

/// Whether callers are so many that each of them waits for others.
pub fn is_busy(calls_inside: u64) -> bool {
    calls_inside >= BUSY_CALLS_MIN
}

/// Between one batch and the next.
pub struct BatchTiming {
    gap_ns: i64,
    taken_ns: AtomicI64,
}

impl BatchTiming {
    /// gap_ns: 0 begins each batch at once.
    pub fn new(gap_ns: i64) -> BatchTiming {
        BatchTiming {
            gap_ns,
            taken_ns: AtomicI64::new(i64::MIN / 2),
        }
    }

    /// A batch was begun.
    pub fn taken(&self, now_ns: i64) {
        self.taken_ns.store(now_ns, Ordering::Relaxed);
    }

    /// When a batch may be made of what waits; None: now.
    pub fn due_ns(&self, rows_waiting: u64, calls_inside: u64, now_ns: i64) -> Option<i64> {
        let company = ROWS_ENOUGH.max(calls_inside / BATCH_SHARE);
        if rows_waiting >= company || !is_busy(calls_inside) {
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
    fn a_handful_never_waits() {
        let batch_timing = BatchTiming::new(700_000);
        batch_timing.taken(1_000_000);
        assert_eq!(batch_timing.due_ns(ROWS_ENOUGH - 1, BUSY_CALLS_MIN - 1, 1_000_001), None);
    }

    #[test]
    fn few_of_many_wait_for_the_gap_and_no_longer() {
        let batch_timing = BatchTiming::new(700_000);
        assert_eq!(batch_timing.due_ns(1, BUSY_CALLS_MIN, 0), None);
        batch_timing.taken(1_000_000);
        assert_eq!(batch_timing.due_ns(1, BUSY_CALLS_MIN, 1_000_001), Some(1_700_000));
        assert_eq!(batch_timing.due_ns(ROWS_ENOUGH - 1, 500, 1_699_999), Some(1_700_000));
        assert_eq!(batch_timing.due_ns(1, BUSY_CALLS_MIN, 1_700_000), None);
    }

    #[test]
    fn company_enough_goes_at_once() {
        let batch_timing = BatchTiming::new(700_000);
        batch_timing.taken(1_000_000);
        assert_eq!(batch_timing.due_ns(ROWS_ENOUGH, ROWS_ENOUGH, 1_000_001), None);
    }

    #[test]
    fn where_more_are_inside_company_is_half_of_them() {
        let batch_timing = BatchTiming::new(700_000);
        batch_timing.taken(1_000_000);
        assert_eq!(batch_timing.due_ns(99, 200, 1_000_001), Some(1_700_000));
        assert_eq!(batch_timing.due_ns(100, 200, 1_000_001), None);
    }

    #[test]
    fn without_a_gap_nobody_waits() {
        let batch_timing = BatchTiming::new(0);
        batch_timing.taken(1_000_000);
        assert_eq!(batch_timing.due_ns(1, 500, 1_000_000), None);
    }
}
