//! Descends trees without branches and without checks of bounds.
//!
//! A step reads a record, reads a value and adds a comparison. Checks of bounds would make a step a third
//! longer, so the bounds of all steps are checked once, when the records are made.

/// Steps between two looks whether all lanes have arrived.
const STRIDE: u32 = 4;

/// A node or a leaf.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// A value above this key goes to `child + 1`, and any other to `child`. No value is above i32::MAX.
    pub key: i32,
    /// The index of the value that is compared.
    pub column: u32,
    /// The index of a record. A leaf is its own child, and its key is i32::MAX.
    pub child: u32,
}

/// Records of trees. Every step from any of them leads to one of them.
#[derive(Clone, Debug)]
pub struct Records {
    records: Vec<Record>,
    columns: usize,
}

impl Records {
    /// None if a record leads to none, or names a column that is not below `columns`.
    pub fn new(records: Vec<Record>, columns: usize) -> Option<Records> {
        let farthest =
            |record: &Record| record.child as usize + usize::from(record.key != i32::MAX);
        let inside = |record: &Record| {
            farthest(record) < records.len() && (record.column as usize) < columns
        };
        records.iter().all(inside).then_some(Records {
            records,
            columns,
        })
    }

    /// The number of columns of values.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The records at which the lanes arrive from `at` after `depth` steps, or fewer if all stay where
    /// they are. `keys` has for each column a value of each lane.
    ///
    /// Panics if a lane is at no record, or a column is missing.
    #[inline(always)]
    pub fn descend<const N: usize>(
        &self,
        mut at: [u32; N],
        depth: u32,
        keys: &[[i32; N]],
    ) -> [u32; N] {
        assert!(at.iter().all(|at| (*at as usize) < self.records.len()));
        assert!(keys.len() >= self.columns);
        for step in 1..=depth {
            let mut moved = 0;
            for (lane, at) in at.iter_mut().enumerate() {
                // SAFETY: `at` is the index of a record at first, and `new` has checked that a step
                // from a record leads to one.
                let record = unsafe { self.records.get_unchecked(*at as usize) };
                // SAFETY: `new` has checked the column, and there are N lanes.
                let key = unsafe { keys.get_unchecked(record.column as usize).get_unchecked(lane) };
                let next = record.child + u32::from(*key > record.key);
                moved |= next ^ *at;
                *at = next;
            }
            if step % STRIDE == 0 && moved == 0 {
                break;
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_lead_nowhere_are_refused() {
        let of = |key, column, child| Record {
            key,
            column,
            child,
        };
        let leaf = |at| of(i32::MAX, 0, at);
        let stump = |root| Records::new(vec![root, leaf(1), leaf(2)], 1);
        assert!(stump(of(0, 0, 1)).is_some());
        assert!(stump(of(0, 0, 2)).is_none(), "record 3");
        assert!(stump(of(0, 1, 1)).is_none(), "column 1");
        assert!(stump(of(i32::MAX, 0, 3)).is_none(), "record 3");
        let records = stump(of(0, 0, 1)).expect("a stump");
        assert_eq!(records.descend([0, 0, 2], 1, &[[0, 1, 1]]), [1, 2, 2]);
    }
}
