//! Finds rows that lead to the leaves of an ensemble, for the proof that two readings of it agree.

use std::collections::HashMap;

use crate::accel::trees::{from_order_key, order_key};

/// An inner node of a tree. It sends a row with a value above its threshold to the right.
#[derive(Clone, Copy, Debug)]
pub struct Split {
    /// The index of the input.
    pub feature: usize,
    /// A missing value goes to the left.
    pub missing_left: bool,
    /// The order key of its threshold.
    pub threshold_key: i32,
    /// The first and the last of the leaves to its left.
    pub left: (u32, u32),
}

/// The values of one input with which a row comes to a leaf.
struct Range {
    /// Order keys above this one.
    above: i32,
    /// Order keys up to this one.
    up_to: i32,
    /// A threshold bounds the range from above.
    bounded: bool,
    /// A missing value comes there too.
    missing: bool,
}

/// Rows that lead to each leaf that none of `rows` leads to, as far as any row does. None if they are
/// more than `most`. `rows` is (R, width) flat with at least one row, as is the result.
pub fn find(trees: Vec<Vec<Split>>, width: usize, rows: &[f32], most: usize) -> Option<Vec<f32>> {
    let mut reached = vec![0_u64; trees.len()];
    let note = |row: &[f32], reached: &mut [u64]| {
        for (leaves, tree) in reached.iter_mut().zip(&trees) {
            *leaves |= 1 << leaf_of(tree, row);
        }
    };
    rows.chunks_exact(width).for_each(|row| note(row, &mut reached));
    // A row to one leaf leads to a leaf of every other tree as well, so few rows are needed.
    let (mut found, mut usual) = (Vec::new(), rows.chunks_exact(width).cycle());
    for (index, tree) in trees.iter().enumerate() {
        for leaf in 0..leaf_count(tree) {
            if reached[index] >> leaf & 1 == 1 {
                continue;
            }
            let Some(row) = row_to(tree, leaf, usual.next()?) else {
                continue;
            };
            if found.len() / width == most {
                return None;
            }
            note(&row, &mut reached);
            found.extend(row);
        }
    }
    Some(found)
}

/// The leaf that a row leads to.
fn leaf_of(tree: &[Split], row: &[f32]) -> u32 {
    let mut reachable = u64::MAX;
    for split in tree {
        if order_key(row[split.feature], split.missing_left) > split.threshold_key {
            let (first, last) = split.left;
            reachable &= !(u64::MAX >> (63 - (last - first)) << first);
        }
    }
    reachable.trailing_zeros()
}

/// The number of leaves. The last leaf lies beside the leaves to the left of some node.
fn leaf_count(tree: &[Split]) -> u32 {
    tree.iter().map(|split| split.left.1 + 2).max().unwrap_or(1)
}

/// A row that leads to a leaf, with values of `usual` where the leaf needs none. None if no row does.
fn row_to(tree: &[Split], leaf: u32, usual: &[f32]) -> Option<Vec<f32>> {
    // What the nodes on the way to the leaf allow.
    let mut ranges: HashMap<usize, Range> = HashMap::new();
    for split in tree {
        let (first, last) = split.left;
        let goes_left = (first..=last).contains(&leaf);
        if !goes_left && !(last + 1..=last_of(tree, split)).contains(&leaf) {
            continue;
        }
        let range = ranges.entry(split.feature).or_insert(Range {
            above: order_key(f32::NEG_INFINITY, true) - 1,
            up_to: order_key(f32::INFINITY, true),
            bounded: false,
            missing: true,
        });
        range.missing &= split.missing_left == goes_left;
        if goes_left {
            range.up_to = range.up_to.min(split.threshold_key);
            range.bounded = true;
        } else {
            range.above = range.above.max(split.threshold_key);
        }
    }
    // Values next to thresholds show a comparison that is read wrongly.
    let mut row = usual.to_vec();
    for (feature, range) in ranges {
        row[feature] = if range.above < range.up_to {
            from_order_key(if range.bounded { range.up_to } else { range.above + 1 })
        } else if range.missing {
            f32::NAN
        } else {
            return None;
        };
    }
    Some(row)
}

/// The last leaf below a node: that of the smallest tree of which it is in the left part.
fn last_of(tree: &[Split], split: &Split) -> u32 {
    let (first, last) = split.left;
    tree.iter()
        .filter(|other| other.left.0 <= first && other.left.1 > last)
        .map(|other| other.left.1)
        .min()
        .unwrap_or_else(|| leaf_count(tree) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(feature: usize, threshold: f32, missing_left: bool, left: (u32, u32)) -> Split {
        Split {
            feature,
            missing_left,
            threshold_key: order_key(threshold, false),
            left,
        }
    }

    #[test]
    fn rows_lead_to_every_leaf_that_a_row_can_reach() {
        // ((0 1) 2) and (3 (4 5)), where leaf 4 needs x0 <= 1 and x0 > 2.
        let tree = vec![
            split(0, 1.0, true, (0, 2)),
            split(1, 0.0, false, (0, 1)),
            split(2, f32::INFINITY, false, (0, 0)),
            split(1, 5.0, true, (3, 3)),
            split(0, 0.5, true, (4, 4)),
        ];
        let rows = find(vec![tree.clone()], 3, &[0.0, -1.0, 0.0], 10).expect("a few rows");
        let leaves: Vec<u32> = rows.chunks_exact(3).map(|row| leaf_of(&tree, row)).collect();
        assert_eq!(leaves, [1, 2, 3, 5]);
        assert!(rows[2].is_nan(), "only a missing value is above infinity");
    }

    #[test]
    fn more_rows_than_allowed_are_none() {
        let stump = |feature| vec![split(feature, 0.0, false, (0, 0))];
        let trees = vec![stump(0), stump(1)];
        let row_count = |most| find(trees.clone(), 2, &[0.0, 0.0], most).map(|rows| rows.len() / 2);
        assert_eq!((row_count(1), row_count(2)), (None, Some(2)));
    }
}
