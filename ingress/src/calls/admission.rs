//! Which calls are admitted: the rule and the messages of gateway/transport/admission.py.

use crate::calls::refusal::{code, Refusal};

/// After how long a refused caller may retry.
const PUSHBACK_MS: u32 = 100;
/// The service rate is measured over at least this time and this many rows.
const WINDOW_NS: i64 = 50_000_000;
const WINDOW_ROWS: u64 = 64;
/// Weight of the newest measurement if it is slower than before. A faster one counts at once.
const NEWEST_WEIGHT: f64 = 0.3;
/// The expected wait is the measured one times this.
const MARGIN: f64 = 1.25;

/// How long a row takes on average, measured only while further rows wait: without a backlog, the
/// callers set the rate and not the worker.
#[derive(Default)]
pub struct ServiceRate {
    /// Time of a row. 0: it was not measured yet.
    row_ns: f64,
    /// When the current measurement began. None: nothing is measured.
    began_ns: Option<i64>,
    /// Rows answered since then.
    rows: u64,
}

impl ServiceRate {
    /// Note that rows wait at `now_ns` besides those being scored.
    pub fn waiting(&mut self, now_ns: i64) {
        if self.began_ns.is_none() {
            self.began_ns = Some(now_ns);
            self.rows = 0;
        }
    }

    /// Note that no row waits. The measurement stops.
    pub fn drained(&mut self) {
        self.began_ns = None;
    }

    /// Note that `rows` rows were answered by `now_ns`.
    pub fn answered(&mut self, rows: u64, now_ns: i64) {
        let Some(began_ns) = self.began_ns else {
            return;
        };
        self.rows += rows;
        let elapsed_ns = now_ns - began_ns;
        if elapsed_ns >= WINDOW_NS && self.rows >= WINDOW_ROWS {
            let newest = elapsed_ns as f64 / self.rows as f64;
            let before = if self.row_ns == 0.0 { newest } else { self.row_ns };
            let slower = (newest - before).max(0.0);
            self.row_ns = newest - (1.0 - NEWEST_WEIGHT) * slower;
            self.began_ns = Some(now_ns);
            self.rows = 0;
        }
    }

    /// How long `rows` rows are expected to take.
    fn wait_ns(&self, rows: u64) -> f64 {
        MARGIN * rows as f64 * self.row_ns
    }
}

/// Bounds on the rows inside one worker, by criticality, and the rate at which rows leave it.
pub struct Admission {
    /// By turnout.v1.Criticality.
    rows_max: [u64; 4],
    /// How fast rows are answered.
    pub rate: ServiceRate,
}

impl Admission {
    /// `rows_inside_max` is the bound for CRITICAL calls. The percentages of it are the bounds for
    /// DEFAULT and SHEDDABLE calls.
    pub fn new(rows_inside_max: u64, default_pct: u64, sheddable_pct: u64) -> Admission {
        let default = rows_inside_max * default_pct / 100;
        let sheddable = rows_inside_max * sheddable_pct / 100;
        Admission {
            rows_max: [default, rows_inside_max, default, sheddable],
            rate: ServiceRate::default(),
        }
    }

    /// The refusal of a call with `rows` rows. None: it may be admitted.
    ///
    /// `ahead` of the `inside` rows are being scored. `remaining_ns` is the time to the deadline of the
    /// call. An idle worker admits every call.
    pub fn refusal(
        &self,
        rows: u64,
        criticality: u8,
        inside: u64,
        ahead: u64,
        remaining_ns: i64,
    ) -> Option<Refusal> {
        if inside == 0 {
            return None;
        }
        // Refuse by the rows inside.
        let bound = self.rows_max[criticality as usize & 3];
        let message = if inside + rows > bound {
            format!(
                "{inside} rows are inside and {rows} more asked for; this worker holds {bound} for \
                 calls of this criticality (rows_inside_max); retry after a pause"
            )
        } else {
            // Refuse by the expected wait.
            let wait_ns = self.rate.wait_ns(ahead + rows);
            if wait_ns <= remaining_ns as f64 {
                return None;
            }
            format!(
                "{rows} rows behind {ahead} take {:.0} ms and the call has {:.0} ms left; retry \
                 after a pause, or with more time",
                wait_ns / 1e6,
                remaining_ns as f64 / 1e6
            )
        };
        Some(Refusal {
            code: code::UNAVAILABLE,
            message,
            pushback_ms: Some(PUSHBACK_MS),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admission_admits_to_an_idle_worker_and_refuses_by_criticality_when_full() {
        let admission = Admission::new(100, 90, 50);
        assert!(admission.refusal(1_000, 2, 0, 0, 1).is_none());
        for (criticality, bound) in [(0, 90), (1, 100), (2, 90), (3, 50)] {
            assert!(admission.refusal(1, criticality, bound - 1, 0, 1).is_none());
            assert!(admission.refusal(1, criticality, bound, 0, 1).is_some());
        }
    }

    #[test]
    fn admission_refuses_a_call_that_would_miss_its_deadline() {
        let mut admission = Admission::new(1_000, 90, 50);
        admission.rate.waiting(0);
        admission.rate.answered(100, 100_000_000);
        assert!(admission.refusal(1, 2, 50, 50, 60_000_000).is_some());
        assert!(admission.refusal(1, 2, 50, 50, 70_000_000).is_none());
    }
}
