//! When waiting calls become a batch, and how long a busy I/O thread leaves its sockets alone.
//!
//! A turn costs some 200 us, and each of its calls some 8 us more. At half of the calls/s that large
//! turns allow, turns of one call would already need a whole core. When many calls are inside, each of
//! them waits for others anyway. So small batches are then begun at most once in `gap_ns`, and the
//! sockets rest between two polls. One caller, or a few, never wait for either. Both waits grow with
//! the calls inside. With a step in their place, one more caller halved the calls/s of all.

use std::sync::atomic::{AtomicI64, Ordering};

/// Up to this many calls inside, nothing waits for other calls.
const FEW_CALLS: u64 = 12;
/// From this many calls inside, the whole gap is between small batches.
const GAP_CALLS: u64 = 16;
/// From this many calls inside, the sockets rest for the whole of POLL_PAUSE_NS.
const POLL_CALLS: u64 = 64;
/// A batch of this many rows does not wait for more.
const ROWS_ENOUGH: u64 = 32;
/// Under load, wait until a batch holds at least 1/BATCH_SHARE of the calls inside: while one half is
/// scored, the other half gathers.
const BATCH_SHARE: u64 = 2;
/// Longest time in which the sockets are not polled. Replies end it, so that it delays none.
const POLL_PAUSE_NS: i64 = 200_000;

/// How long the I/O thread lets calls gather before it polls its sockets again.
pub fn poll_pause_ns(calls_inside: u64) -> i64 {
    grown(POLL_PAUSE_NS, calls_inside, POLL_CALLS)
}

/// A wait that grows evenly from 0 at FEW_CALLS inside to `whole_ns` at `many_calls`.
fn grown(whole_ns: i64, calls_inside: u64, many_calls: u64) -> i64 {
    let above = calls_inside.min(many_calls).saturating_sub(FEW_CALLS);
    whole_ns * above as i64 / (many_calls - FEW_CALLS) as i64
}

/// The longest time between small batches, and when the last batch was taken.
pub struct BatchTiming {
    gap_ns: i64,
    taken_ns: AtomicI64,
}

impl BatchTiming {
    /// `gap_ns` is the longest gap; few calls inside make it shorter. 0 begins each batch at once.
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
        let gap_ns = grown(self.gap_ns, calls_inside, GAP_CALLS);
        if rows_waiting >= rows_enough || gap_ns == 0 {
            return None;
        }
        let due_ns = self.taken_ns.load(Ordering::Relaxed) + gap_ns;
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
        assert_eq!(timing.due_ns(1, FEW_CALLS, 1_000_001), None);
        assert_eq!(poll_pause_ns(FEW_CALLS), 0);
    }

    #[test]
    fn batch_timing_delays_a_small_batch_until_the_gap_ends_when_busy() {
        let timing = BatchTiming::new(700_000);
        assert_eq!(timing.due_ns(1, GAP_CALLS, 0), None);
        timing.batch_taken(1_000_000);
        assert_eq!(timing.due_ns(1, GAP_CALLS, 1_000_001), Some(1_700_000));
        assert_eq!(timing.due_ns(ROWS_ENOUGH - 1, 500, 1_699_999), Some(1_700_000));
        assert_eq!(timing.due_ns(1, GAP_CALLS, 1_700_000), None);
    }

    #[test]
    fn batch_timing_delays_by_a_little_more_with_each_call_inside() {
        let timing = BatchTiming::new(700_000);
        timing.batch_taken(1_000_000);
        let gaps = (FEW_CALLS..=GAP_CALLS)
            .map(|inside| timing.due_ns(1, inside, 1_000_000).map_or(0, |due| due - 1_000_000));
        assert_eq!(gaps.collect::<Vec<_>>(), [0, 175_000, 350_000, 525_000, 700_000]);
        let pauses: Vec<i64> = (0..=POLL_CALLS + 1).map(poll_pause_ns).collect();
        assert!(pauses.windows(2).all(|pair| (0..4_000).contains(&(pair[1] - pair[0]))));
        assert_eq!(pauses.last(), Some(&POLL_PAUSE_NS));
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
        for inside in GAP_CALLS..=ROWS_ENOUGH {
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
