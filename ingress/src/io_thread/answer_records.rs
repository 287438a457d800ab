//! The records of answers that the I/O thread has given, until Python takes them.

use crate::accel::answered_group::AnsweredGroup;
use crate::accel::rows::DEGRADED;
use crate::accel::turn::Group;

/// A record of answers is closed at so many rows or bytes, so that a fold can take records one by one.
const RECORD_ROWS_MAX: usize = 512;
/// As FOLD_VECTOR_BYTES in gateway/telemetry/recorder.py.
const RECORD_BYTES_OPEN_MAX: usize = 512 << 10;
/// While so many bytes of records wait for Python, Python answers. At 100,000 calls/s of 20 inputs it is
/// some .8 s.
const RECORD_BYTES_MAX: usize = 16 << 20;
const SECOND_NS: i64 = 1_000_000_000;
/// Bits of the flags of a row.
const FLAG_BITS: usize = 8;

/// The answers of one plan in one second, for the recorder.
pub struct AnswerRecord {
    /// The number of the plan.
    pub plan: u64,
    /// Unix time of the first answer.
    pub unix_ns: i64,
    /// The rows of each group that was answered at once.
    pub group_rows: Vec<u32>,
    /// The rows of all groups.
    pub rows: usize,
    /// How the rows were read from the store.
    pub read: ReadCounts,
    /// The calls of all groups, as one.
    pub calls: AnsweredGroup,
}

/// How rows were read from the store.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct ReadCounts {
    /// Rows with each turnout.v1.RowFlag, by the flag's bit.
    pub flagged: [u32; FLAG_BITS],
    /// Rows with a wrong hash or id.
    pub broken: usize,
    /// Groups that the store did not answer in time.
    pub late_groups: usize,
}

impl ReadCounts {
    /// Count the rows of a group.
    pub fn new(group: &Group) -> ReadCounts {
        ReadCounts::of_rows(&group.flags, group.broken)
    }

    fn of_rows(flags: &[u32], broken: usize) -> ReadCounts {
        let degraded = flags.first().is_some_and(|flags| flags & DEGRADED != 0);
        let mut counts = ReadCounts {
            broken,
            late_groups: usize::from(degraded),
            ..ReadCounts::default()
        };
        for flags in flags.iter().filter(|flags| **flags != 0) {
            for (bit, rows) in counts.flagged.iter_mut().enumerate() {
                *rows += flags >> bit & 1;
            }
        }
        counts
    }

    fn add(&mut self, other: &ReadCounts) {
        self.broken += other.broken;
        self.late_groups += other.late_groups;
        self.flagged.iter_mut().zip(&other.flagged).for_each(|(own, rows)| *own += rows);
    }
}

/// The records that wait for Python.
#[derive(Default)]
pub struct Records {
    waiting: Vec<AnswerRecord>,
    bytes: usize,
}

impl Records {
    /// Whether there is room for more.
    pub fn has_room(&self) -> bool {
        self.bytes < RECORD_BYTES_MAX
    }

    /// Take the records that wait.
    pub fn take(&mut self) -> Vec<AnswerRecord> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    /// Add answered calls to the open record of their plan and second, or begin a record.
    pub fn add(
        &mut self,
        plan: u64,
        unix_ns: i64,
        rows: usize,
        read: &ReadCounts,
        calls: &AnsweredGroup,
    ) {
        self.bytes += calls.bytes();
        let newest = self.waiting.iter_mut().rev().find(|record| record.plan == plan);
        let open = newest.filter(|record| {
            record.unix_ns / SECOND_NS == unix_ns / SECOND_NS
                && record.rows + rows <= RECORD_ROWS_MAX
                && record.calls.bytes() + calls.bytes() <= RECORD_BYTES_OPEN_MAX
        });
        match open {
            Some(record) => {
                record.calls.append(calls);
                record.rows += rows;
                record.group_rows.push(rows as u32);
                record.read.add(read);
            }
            None => {
                let mut all = AnsweredGroup::empty(calls.times());
                all.append(calls);
                self.waiting.push(AnswerRecord {
                    plan,
                    unix_ns,
                    group_rows: vec![rows as u32],
                    rows,
                    read: *read,
                    calls: all,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accel::answered_group::AnswerTimes;

    #[test]
    fn records_are_cut_by_plan_second_and_rows() {
        let none = AnsweredGroup::empty(AnswerTimes {
            unix_ns: 0,
            read_unix_ns: 0,
            answered_ns: 0,
        });
        let mut records = Records::default();
        let given = [(1, 0, 2), (2, 0, 2), (1, 5, 3), (1, SECOND_NS, 1), (1, SECOND_NS, 512)];
        for (plan, unix_ns, rows) in given {
            records.add(plan, unix_ns, rows, &ReadCounts::of_rows(&[5, 0, 1], 1), &none);
        }
        let taken = records.take();
        let kept: Vec<_> =
            taken.iter().map(|r| (r.plan, r.unix_ns, r.group_rows.clone())).collect();
        assert_eq!(
            kept,
            [
                (1, 0, vec![2, 3]),
                (2, 0, vec![2]),
                (1, SECOND_NS, vec![1]),
                (1, SECOND_NS, vec![512])
            ]
        );
        // Of the first record: 5 and 1 have bit 0, and 5 has bit 2, in each of two groups.
        assert_eq!(
            taken[0].read,
            ReadCounts {
                flagged: [4, 0, 2, 0, 0, 0, 0, 0],
                broken: 2,
                late_groups: 0
            }
        );
    }
}
