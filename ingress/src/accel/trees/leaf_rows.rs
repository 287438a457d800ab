//! Finds rows that lead to the leaves of an ensemble, for the proof that two readings of it agree.

use std::collections::{HashMap, HashSet};

use crate::accel::trees::from_order_key;
use crate::accel::trees::tree::{Node, Split, Tree};

/// The values of one input with which a row comes to a leaf.
struct Range {
    /// Order keys above this one.
    above: i32,
    /// Order keys up to this one.
    up_to: i32,
    /// Order keys that are none of these.
    excluded: HashSet<i32>,
    /// A threshold bounds the range from above.
    bounded: bool,
    /// A missing value comes there too.
    missing: bool,
}

/// The key between 0 and the numbers below it. No value has it, because -0.0 has the key of 0.
const NEGATIVE_ZERO: i32 = -1;
/// Ways from the root to a node that are tried.
const WAYS_MAX: usize = 64;

/// Rows that lead to each leaf, and along each branch, to which none of `rows` leads, as far as any row
/// does. None if they are more than `most`. `rows` is (R, width) flat with at least one row, as is the
/// result. `bounds` are the lowest and the highest order key that an input may have.
pub fn find(
    trees: &[Tree],
    width: usize,
    rows: &[f32],
    most: usize,
    bounds: impl Fn(u32) -> (i32, i32),
) -> Option<Vec<f32>> {
    // The branches to the left and to the right of each node that rows take.
    let mut taken: Vec<Vec<[bool; 2]>> =
        trees.iter().map(|tree| vec![[false; 2]; tree.nodes.len()]).collect();
    let note = |row: &[f32], taken: &mut [Vec<[bool; 2]>]| {
        for (branches, tree) in taken.iter_mut().zip(trees) {
            tree.walk(row, |at, left| branches[at][usize::from(!left)] = true);
        }
    };
    rows.chunks_exact(width).for_each(|row| note(row, &mut taken));
    // A row along one branch takes branches of every other tree as well, so few rows are needed. Children
    // come after parents, so the branches to leaves are first.
    let (mut found, mut usual) = (Vec::new(), rows.chunks_exact(width).cycle());
    for (index, tree) in trees.iter().enumerate() {
        let parents = parents(tree);
        for at in (0..tree.nodes.len()).rev() {
            for left in [true, false] {
                let is_split = matches!(tree.nodes[at], Node::Split(_));
                if !is_split || taken[index][at][usize::from(!left)] {
                    continue;
                }
                let Some(row) = row_along(tree, &parents, (at, left), usual.next()?, &bounds)
                else {
                    continue;
                };
                if found.len() / width == most {
                    return None;
                }
                note(&row, &mut taken);
                found.extend(row);
            }
        }
    }
    Some(found)
}

/// A branch: the index of a node, and whether it is the branch to the left.
type Branch = (usize, bool);

/// The branches that lead to each node.
fn parents(tree: &Tree) -> Vec<Vec<Branch>> {
    let mut parents = vec![Vec::new(); tree.nodes.len()];
    for (at, node) in tree.nodes.iter().enumerate() {
        if let Node::Split(split) = node {
            parents[split.left as usize].push((at, true));
            parents[split.right as usize].push((at, false));
        }
    }
    parents
}

/// A row along a branch, with values of `usual` where it needs none. None if no row takes it, by the
/// first WAYS_MAX ways to it.
fn row_along(
    tree: &Tree,
    parents: &[Vec<Branch>],
    last: Branch,
    usual: &[f32],
    bounds: &impl Fn(u32) -> (i32, i32),
) -> Option<Vec<f32>> {
    let mut ways = vec![vec![last]];
    for _ in 0..WAYS_MAX {
        // Go back to the root, and keep the other ways to each node for later.
        let mut way = ways.pop()?;
        while let Some((branch, others)) = parents[way[way.len() - 1].0].split_first() {
            for other in others.iter().take(WAYS_MAX.saturating_sub(ways.len())) {
                ways.push([&way[..], &[*other]].concat());
            }
            way.push(*branch);
        }
        if let Some(row) = row_by(tree, &way, usual, bounds) {
            return Some(row);
        }
    }
    None
}

/// A row along all branches of a way, with values of `usual` where it needs none. None if no row is.
fn row_by(
    tree: &Tree,
    way: &[Branch],
    usual: &[f32],
    bounds: &impl Fn(u32) -> (i32, i32),
) -> Option<Vec<f32>> {
    // What the nodes on the way allow.
    let mut ranges: HashMap<u32, Range> = HashMap::new();
    for (at, left) in way {
        if let Node::Split(split) = &tree.nodes[*at] {
            let range = ranges.entry(split.feature).or_insert_with(|| {
                let (lowest, highest) = bounds(split.feature);
                Range {
                    above: lowest - 1,
                    up_to: highest,
                    excluded: HashSet::new(),
                    bounded: false,
                    missing: true,
                }
            });
            narrow(range, split, *left);
        }
    }
    // Values next to thresholds show a comparison that is read wrongly.
    let mut row = usual.to_vec();
    for (feature, range) in ranges {
        let allowed = |key: &i32| *key != NEGATIVE_ZERO && !range.excluded.contains(key);
        let key = match range.bounded {
            true => (range.above.saturating_add(1)..=range.up_to).rev().find(allowed),
            false => (range.above.saturating_add(1)..=range.up_to).find(allowed),
        };
        row[feature as usize] = match key {
            Some(key) => from_order_key(key),
            None if range.missing => f32::NAN,
            None => return None,
        };
    }
    Some(row)
}

/// Leave the values of a range that go to one side of a node.
fn narrow(range: &mut Range, split: &Split, goes_left: bool) {
    range.missing &= split.missing_left == goes_left;
    match (split.equal, goes_left) {
        (false, true) => {
            range.up_to = range.up_to.min(split.key);
            range.bounded = true;
        }
        (false, false) => range.above = range.above.max(split.key),
        (true, true) => {
            range.up_to = range.up_to.min(split.key);
            range.above = range.above.max(split.key - 1);
            range.bounded = true;
        }
        (true, false) => {
            range.excluded.insert(split.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accel::trees::{order_key, single_bounds};

    fn split(feature: u32, threshold: f32, missing_left: bool, left: u32, right: u32) -> Node {
        Node::Split(Split {
            feature,
            missing_left,
            key: order_key(threshold, false),
            equal: false,
            left,
            right,
        })
    }

    fn grown(nodes: Vec<Node>) -> Tree {
        let leaves = nodes.iter().filter(|node| matches!(node, Node::Leaf(_))).count();
        Tree {
            nodes,
            targets: vec![0],
            weights: vec![0.0; leaves],
        }
    }

    /// The last branch of a row.
    fn end(tree: &Tree, row: &[f32]) -> Branch {
        let mut last = (0, false);
        tree.walk(row, |at, left| last = (at, left));
        last
    }

    #[test]
    fn rows_lead_to_every_leaf_that_a_row_can_reach() {
        // ((0 1) 2) and (3 (4 5)), where leaf 4 needs x0 <= 1 and x0 > 2.
        let tree = grown(vec![
            split(0, 1.0, true, 1, 2),
            split(1, 0.0, false, 3, 4),
            split(1, 5.0, true, 5, 6),
            split(2, f32::INFINITY, false, 7, 8),
            Node::Leaf(2),
            Node::Leaf(3),
            split(0, 0.5, true, 9, 10),
            Node::Leaf(0),
            Node::Leaf(1),
            Node::Leaf(4),
            Node::Leaf(5),
        ]);
        assert!(tree.is_valid(3, 1));
        let rows = find(std::slice::from_ref(&tree), 3, &[0.0, -1.0, 0.0], 10, single_bounds)
            .expect("a few rows");
        let mut ends: Vec<(usize, bool)> =
            rows.chunks_exact(3).map(|row| end(&tree, row)).collect();
        let missing = ends.iter().position(|end| *end == (3, false)).expect("leaf 1 is reached");
        assert!(rows[3 * missing + 2].is_nan(), "only a missing value is above infinity");
        ends.sort_unstable();
        assert_eq!(ends, [(1, false), (2, true), (3, false), (6, false)]);
    }

    #[test]
    fn a_row_below_zero_is_not_negative_zero() {
        let Node::Split(below_zero) = split(0, 0.0, false, 1, 2) else {
            unreachable!();
        };
        let below_zero = Split {
            key: below_zero.key - 1,
            ..below_zero
        };
        let tree = grown(vec![Node::Split(below_zero), Node::Leaf(0), Node::Leaf(1)]);
        let row = find(std::slice::from_ref(&tree), 1, &[0.0], 1, single_bounds).expect("one row");
        assert_eq!((row[0], end(&tree, &row)), (-1e-45, (0, true)));
    }

    #[test]
    fn more_rows_than_allowed_are_none() {
        let stump =
            |feature| grown(vec![split(feature, 0.0, false, 1, 2), Node::Leaf(0), Node::Leaf(1)]);
        let trees = [stump(0), stump(1)];
        let row_count =
            |most| find(&trees, 2, &[0.0, 0.0], most, single_bounds).map(|rows| rows.len() / 2);
        assert_eq!((row_count(1), row_count(2)), (None, Some(2)));
    }
}
