//! What became of the calls: one tally a thread, added up at the end.

use crate::replies::{self, FLAGS, ROLES, Told};
use hdrhistogram::Histogram;

pub const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
pub const CANCELLED: u32 = 1;
pub const UNKNOWN: u32 = 2;
pub const DEADLINE_EXCEEDED: u32 = 4;
pub const RESOURCE_EXHAUSTED: u32 = 8;
pub const INTERNAL: u32 = 13;
pub const UNAVAILABLE: u32 = 14;
/// Longest time the histogram tells apart from longer ones.
const TOOK_NS_MAX: u64 = 600_000_000_000;
/// Versions and roles told apart; what comes beyond them is counted with the last.
const KINDS_MAX: usize = 64;
const WORDS_MAX: usize = 300;

/// Which calls count.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub from_ns: u64,
    pub to_ns: u64,
    /// By when they ended; else by when they were due.
    pub by_end: bool,
}

impl Window {
    #[inline]
    pub fn holds(&self, due_ns: u64, ended_ns: u64) -> bool {
        let at = if self.by_end { ended_ns } else { due_ns };
        (self.from_ns..self.to_ns).contains(&at)
    }
}

/// When a call was to be sent and when it was, on the run's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    pub due_ns: u64,
    pub sent_ns: u64,
}

/// A version and role that answered.
#[derive(Clone, Debug)]
pub struct Kind {
    pub version: Vec<u8>,
    pub role: u8,
    pub calls: u64,
}

impl Kind {
    pub fn role_name(&self) -> &'static str {
        ROLES.get(self.role as usize).copied().unwrap_or("?")
    }
}

/// What a reply's message said, kept until its trailers come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heard {
    kind: u8,
    flagged: [u16; FLAGS.len()],
}

#[derive(Clone, Debug)]
pub struct Tally {
    pub window: Window,
    /// From due (open loop) or sent to answered, ns.
    pub answered: Histogram<u64>,
    pub failed: Histogram<u64>,
    pub codes: [u64; CODES.len()],
    /// The first words of each status.
    pub words: [String; CODES.len()],
    pub kinds: Vec<Kind>,
    pub flagged: [u64; FLAGS.len()],
    /// Calls the server never looked at (REFUSED_STREAM, GOAWAY) and that were sent again.
    pub sent_again: u64,
    pub connections_lost: u64,
    /// Ended at any time, in the window or not.
    pub ended: u64,
    pub ended_badly: u64,
    /// Of calls in the window: the last end.
    pub last_end_ns: u64,
    /// Whether replies are PredictReplies.
    reads_replies: bool,
}

impl Tally {
    pub fn new(window: Window, reads_replies: bool) -> Tally {
        let times = || Histogram::new_with_bounds(1_000, TOOK_NS_MAX, 3).expect("fixed bounds");
        Tally {
            window,
            answered: times(),
            failed: times(),
            codes: [0; CODES.len()],
            words: std::array::from_fn(|_| String::new()),
            kinds: Vec::new(),
            flagged: [0; FLAGS.len()],
            sent_again: 0,
            connections_lost: 0,
            ended: 0,
            ended_badly: 0,
            last_end_ns: 0,
            reads_replies,
        }
    }

    /// Read a reply's message.
    #[inline]
    pub fn hear(&mut self, message: &[u8]) -> Heard {
        if !self.reads_replies {
            return Heard::default();
        }
        let told = replies::reply(message);
        Heard {
            kind: self.kind(&told),
            flagged: told.flagged.map(|rows| rows as u16),
        }
    }

    #[inline]
    fn kind(&mut self, told: &Told<'_>) -> u8 {
        let found = self
            .kinds
            .iter()
            .position(|kind| kind.role == told.role && kind.version == told.version);
        if let Some(place) = found {
            return place as u8;
        }
        if self.kinds.len() < KINDS_MAX {
            let version = told.version.to_vec();
            self.kinds.push(Kind {
                version,
                role: told.role,
                calls: 0,
            });
        }
        self.kinds.len() as u8 - 1
    }

    /// A call was answered.
    #[inline]
    pub fn answer(&mut self, times: Times, ended_ns: u64, heard: Heard) {
        self.ended += 1;
        if !self.window.holds(times.due_ns, ended_ns) {
            return;
        }
        self.last_end_ns = ended_ns;
        self.codes[0] += 1;
        self.answered
            .saturating_record(ended_ns.saturating_sub(times.due_ns));
        if self.reads_replies {
            self.kinds[heard.kind as usize].calls += 1;
            for (sum, rows) in self.flagged.iter_mut().zip(heard.flagged) {
                *sum += u64::from(rows);
            }
        }
    }

    /// A call ended with another status.
    pub fn fail(&mut self, times: Times, ended_ns: u64, code: u32, words: &str) {
        self.ended += 1;
        self.ended_badly += 1;
        if !self.window.holds(times.due_ns, ended_ns) {
            return;
        }
        self.last_end_ns = ended_ns;
        let place = if code == 0 || code as usize >= CODES.len() {
            UNKNOWN
        } else {
            code
        } as usize;
        self.codes[place] += 1;
        self.failed
            .saturating_record(ended_ns.saturating_sub(times.due_ns));
        if self.words[place].is_empty() {
            self.words[place] = words.chars().take(WORDS_MAX).collect();
        }
    }

    /// Add another thread's.
    pub fn add(&mut self, other: &Tally) {
        self.answered.add(&other.answered).expect("the same bounds");
        self.failed.add(&other.failed).expect("the same bounds");
        for place in 0..CODES.len() {
            self.codes[place] += other.codes[place];
            if self.words[place].is_empty() {
                self.words[place].clone_from(&other.words[place]);
            }
        }
        for kind in &other.kinds {
            let told = Told {
                version: &kind.version,
                role: kind.role,
                ..Told::default()
            };
            let place = self.kind(&told) as usize;
            self.kinds[place].calls += kind.calls;
        }
        for (sum, rows) in self.flagged.iter_mut().zip(other.flagged) {
            *sum += rows;
        }
        self.sent_again += other.sent_again;
        self.connections_lost += other.connections_lost;
        self.ended += other.ended;
        self.ended_badly += other.ended_badly;
        self.last_end_ns = self.last_end_ns.max(other.last_end_ns);
    }

    pub fn calls(&self) -> u64 {
        self.codes.iter().sum()
    }

    #[cfg(test)]
    pub fn failures(&self) -> u64 {
        self.calls() - self.codes[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALWAYS: Window = Window {
        from_ns: 0,
        to_ns: u64::MAX,
        by_end: true,
    };

    fn at(due_ns: u64) -> Times {
        Times {
            due_ns,
            sent_ns: due_ns,
        }
    }

    #[test]
    fn only_what_the_window_holds_is_counted() {
        let by_end = Window {
            from_ns: 10,
            to_ns: 20,
            by_end: true,
        };
        let by_start = Window {
            by_end: false,
            ..by_end
        };
        assert!(by_end.holds(5, 15) && !by_end.holds(15, 25));
        assert!(!by_start.holds(5, 15) && by_start.holds(15, 25));
        let mut tally = Tally::new(by_end, false);
        tally.answer(at(0), 5, Heard::default());
        tally.fail(at(0), 25, UNAVAILABLE, "away");
        assert_eq!((tally.calls(), tally.ended), (0, 2));
    }

    #[test]
    fn time_counts_from_when_a_call_was_due() {
        let mut tally = Tally::new(ALWAYS, false);
        tally.answer(
            Times {
                due_ns: 1_000,
                sent_ns: 900_000,
            },
            1_001_000,
            Heard::default(),
        );
        assert_eq!(tally.answered.max(), 1_000_447); // three digits
    }

    #[test]
    fn two_tallies_add_up() {
        let mut first = Tally::new(ALWAYS, true);
        let mut second = Tally::new(ALWAYS, true);
        for (tally, version) in [(&mut first, b"1"), (&mut second, b"2")] {
            for role in [1, 2] {
                let message = [0x1a, 1, version[0], 0x20, role, 0x4a, 1, 8];
                let heard = tally.hear(&message);
                tally.answer(at(0), 2_000, heard);
            }
            tally.fail(at(0), 3_000, UNAVAILABLE, "away");
        }
        first.add(&second);
        first.add(&second);
        assert_eq!((first.calls(), first.failures()), (9, 3));
        assert_eq!(first.codes[14], 3);
        assert_eq!(first.words[14], "away");
        assert_eq!(first.flagged, [0, 0, 0, 6, 0]);
        let counts: Vec<_> = first
            .kinds
            .iter()
            .map(|k| (k.version[0], k.role_name(), k.calls))
            .collect();
        assert_eq!(
            counts,
            [
                (b'1', "production", 1),
                (b'1', "canary", 1),
                (b'2', "production", 2),
                (b'2', "canary", 2)
            ]
        );
    }

    #[test]
    fn a_failure_without_a_code_is_unknown() {
        let mut tally = Tally::new(ALWAYS, false);
        tally.fail(at(0), 1, 0, "ended well without an answer");
        tally.fail(at(0), 1, 99, "");
        assert_eq!(tally.codes[UNKNOWN as usize], 2);
    }
}
