//! Counts and latencies of the calls of a run.

use crate::replies::{FLAGS, PredictReply, ROLES};
use hdrhistogram::Histogram;

/// Names of the gRPC status codes, by number.
#[rustfmt::skip]
pub const CODES: [&str; 17] = [
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
];
pub const CANCELLED: u32 = 1;
pub const UNKNOWN: u32 = 2;
pub const DEADLINE_EXCEEDED: u32 = 4;
pub const PERMISSION_DENIED: u32 = 7;
pub const RESOURCE_EXHAUSTED: u32 = 8;
pub const UNIMPLEMENTED: u32 = 12;
pub const INTERNAL: u32 = 13;
pub const UNAVAILABLE: u32 = 14;
pub const UNAUTHENTICATED: u32 = 16;

/// Latencies are recorded up to this value, to three digits. A longer one is recorded as this.
const LATENCY_NS_MAX: u64 = 600_000_000_000;
/// Distinct versions and roles that are counted. Calls beyond them are counted with the last.
const ANSWERERS_MAX: usize = 64;
const MESSAGE_CHARS_MAX: usize = 300;

/// Which calls are counted.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub from_ns: u64,
    pub to_ns: u64,
    /// A call is counted if it ended in the window; otherwise, if it was due in the window.
    pub by_end: bool,
}

impl Window {
    #[inline]
    fn holds(&self, due_ns: u64, end_ns: u64) -> bool {
        (self.from_ns..self.to_ns).contains(if self.by_end { &end_ns } else { &due_ns })
    }
}

/// A version and the role in which it answered.
#[derive(Clone, Debug)]
pub struct Answerer {
    pub version: Vec<u8>,
    pub role: u8,
    pub calls: u64,
}

impl Answerer {
    pub fn role_name(&self) -> &'static str {
        ROLES.get(self.role as usize).copied().unwrap_or("?")
    }
}

/// What a reply's message says, kept until the call's trailers arrive.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplySummary {
    answerer: u8,
    rows_flagged: [u16; FLAGS.len()],
}

/// All times are nanoseconds on the run's clock. A call's latency counts from when it was due. In a
/// closed loop that is when it was sent.
#[derive(Clone, Debug)]
pub struct Results {
    window: Window,
    /// When the event that is being handled happened. The owner sets it before each event.
    pub now_ns: u64,
    /// Latencies of answered calls, ns.
    pub answered: Histogram<u64>,
    /// Times after which the other calls ended, ns.
    pub failed: Histogram<u64>,
    /// Calls by status code.
    pub codes: [u64; CODES.len()],
    /// The first error message of each status code.
    pub messages: [String; CODES.len()],
    pub answerers: Vec<Answerer>,
    pub rows_flagged: [u64; FLAGS.len()],
    /// Calls that the server never processed (REFUSED_STREAM, GOAWAY), so that they were sent again.
    pub transparent_retries: u64,
    pub connections_lost: u64,
    /// All calls that ended, inside the window or not.
    pub ended: u64,
    /// When the last counted call ended.
    pub last_end_ns: u64,
}

impl Results {
    pub fn new(window: Window) -> Results {
        let histogram = || {
            Histogram::new_with_bounds(1_000, LATENCY_NS_MAX, 3).expect("the bounds are constants")
        };
        Results {
            window,
            now_ns: 0,
            answered: histogram(),
            failed: histogram(),
            codes: [0; CODES.len()],
            messages: Default::default(),
            answerers: Vec::new(),
            rows_flagged: [0; FLAGS.len()],
            transparent_retries: 0,
            connections_lost: 0,
            ended: 0,
            last_end_ns: 0,
        }
    }

    /// Reads the bytes of a PredictReply.
    #[inline]
    pub fn summarize(&mut self, message: &[u8]) -> ReplySummary {
        let reply = PredictReply::read(message);
        ReplySummary { answerer: self.answerer(&reply), rows_flagged: reply.rows_flagged }
    }

    /// Returns the place in `answerers` of the version and role of `reply`.
    #[inline]
    fn answerer(&mut self, reply: &PredictReply<'_>) -> u8 {
        let found = self
            .answerers
            .iter()
            .position(|known| known.role == reply.role && known.version == reply.version);
        if let Some(place) = found {
            return place as u8;
        }
        if self.answerers.len() < ANSWERERS_MAX {
            let version = reply.version.to_vec();
            self.answerers.push(Answerer { version, role: reply.role, calls: 0 });
        }
        self.answerers.len() as u8 - 1
    }

    /// Counts a call that was answered now.
    #[inline]
    pub fn add_answer(&mut self, due_ns: u64, summary: ReplySummary) {
        self.ended += 1;
        if !self.window.holds(due_ns, self.now_ns) {
            return;
        }
        self.last_end_ns = self.now_ns;
        self.codes[0] += 1;
        self.answered.saturating_record(self.now_ns.saturating_sub(due_ns));
        self.answerers[summary.answerer as usize].calls += 1;
        for (sum, rows) in self.rows_flagged.iter_mut().zip(summary.rows_flagged) {
            *sum += u64::from(rows);
        }
    }

    /// Counts a call that ended now with a status other than OK. A `code` of 0 or above 16 counts as
    /// UNKNOWN.
    pub fn add_failure(&mut self, due_ns: u64, code: u32, message: &str) {
        self.ended += 1;
        if !self.window.holds(due_ns, self.now_ns) {
            return;
        }
        self.last_end_ns = self.now_ns;
        self.failed.saturating_record(self.now_ns.saturating_sub(due_ns));
        let known = (1..CODES.len() as u32).contains(&code);
        let code = if known { code } else { UNKNOWN } as usize;
        self.codes[code] += 1;
        if self.messages[code].is_empty() {
            self.messages[code] = message.chars().take(MESSAGE_CHARS_MAX).collect();
        }
    }

    /// Number of counted calls.
    pub fn calls(&self) -> u64 {
        self.codes.iter().sum()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub const ALWAYS: Window = Window { from_ns: 0, to_ns: u64::MAX, by_end: true };
    /// A PredictReply of version "3" as PRODUCTION.
    pub const REPLY: &[u8] = b"\x1a\x013\x20\x01";

    #[test]
    fn window_counts_calls_by_their_end_or_by_when_they_were_due() {
        let by_end = Window { from_ns: 10, to_ns: 20, by_end: true };
        let by_due = Window { by_end: false, ..by_end };
        assert!(by_end.holds(5, 15) && !by_end.holds(15, 25));
        assert!(!by_due.holds(5, 15) && by_due.holds(15, 25));
        let mut results = Results::new(by_end);
        let summary = results.summarize(REPLY);
        results.now_ns = 5;
        results.add_answer(0, summary);
        results.now_ns = 25;
        results.add_failure(0, UNAVAILABLE, "away");
        assert_eq!((results.calls(), results.ended), (0, 2));
    }

    #[test]
    fn latency_counts_from_when_a_call_was_due() {
        let mut results = Results::new(ALWAYS);
        let summary = results.summarize(REPLY);
        results.now_ns = 1_001_000;
        results.add_answer(1_000, summary);
        assert_eq!(results.answered.max(), 1_000_447); // 1 ms, to three digits
    }

    #[test]
    fn answers_are_counted_by_version_and_role_and_flags_by_row() {
        let mut results = Results::new(ALWAYS);
        for (version, role) in [(b'1', 1), (b'1', 2), (b'2', 1), (b'1', 1)] {
            let summary = results.summarize(&[0x1a, 1, version, 0x20, role, 0x4a, 1, 8]);
            results.add_answer(0, summary);
        }
        let answerer = |one: &Answerer| (one.version[0], one.role_name(), one.calls);
        assert_eq!(
            results.answerers.iter().map(answerer).collect::<Vec<_>>(),
            [(b'1', "production", 2), (b'1', "canary", 1), (b'2', "production", 1)]
        );
        assert_eq!(results.rows_flagged, [0, 0, 0, 4, 0]);
    }

    #[test]
    fn failures_keep_their_first_message_and_unknown_codes_are_unknown() {
        let mut results = Results::new(ALWAYS);
        results.add_failure(0, UNAVAILABLE, "away");
        results.add_failure(0, UNAVAILABLE, "still away");
        results.add_failure(0, 0, "ended without an answer");
        results.add_failure(0, 99, "");
        assert_eq!((results.codes[14], &results.messages[14][..]), (2, "away"));
        assert_eq!((results.codes[UNKNOWN as usize], results.ended), (2, 4));
    }
}
