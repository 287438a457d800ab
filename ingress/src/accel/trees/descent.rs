//! The layout for trees of many leaves, or with tests of equality: a descent without branches.
//!
//! A node is a record of three numbers, and its children are neighbours. One step of a row is
//! `child + (value > key)`. A leaf is its own child, so rows that arrive early stay while others
//! descend. Many rows descend one tree together, so that the processor waits for memory once for all
//! of them; a single row descends many trees together.

use std::collections::{BTreeMap, VecDeque};

use crate::accel::trees::order_key;
use crate::accel::trees::outputs::Sum;
use crate::accel::trees::tree::{Node, Tree};
use crate::sys::records::{Record, Records};

/// Rows of a block that descend together, and trees that a single row descends together.
const LANES: usize = 16;
const HALF_LANES: usize = LANES / 2;
/// Blocks that descend one tree before the next one. Their values stay in the nearest cache.
const BLOCKS: usize = 4;

/// Where one tree is, and what it adds to.
#[derive(Clone, Debug)]
struct Root {
    record: u32,
    /// The steps to its farthest leaf.
    depth: u32,
    /// The one sum that the leaves add to. None: every leaf has a weight for each sum.
    target: Option<u32>,
}

/// Trees as records.
#[derive(Clone, Debug)]
pub struct Descent<S> {
    records: Records,
    /// For a leaf's record its one weight (Sum::kept), or the index of its first weight in `weights`.
    leaves: Vec<u32>,
    weights: Vec<S>,
    roots: Vec<Root>,
    /// The inputs that are compared, once for each way of missing values.
    columns: Vec<(usize, bool)>,
    target_count: usize,
}

/// A layout that is not complete.
#[derive(Default)]
struct Draft<S> {
    records: Vec<Record>,
    leaves: Vec<u32>,
    weights: Vec<S>,
    roots: Vec<Root>,
    /// The index of each input and way of missing values.
    column_of: BTreeMap<(usize, bool), u32>,
    target_count: usize,
}

/// What a record is made of.
#[derive(Clone, Copy)]
enum Source {
    /// A node by its index.
    Node(u32),
    /// The second record of a test of equality: the value is not above the key, and may be below it.
    NotAbove(u32),
}

impl<S: Sum> Descent<S> {
    /// Lay out valid trees. None if they have more nodes or weights than an index counts.
    pub fn new(trees: &[Tree], target_count: usize) -> Option<Descent<S>> {
        let mut draft = Draft {
            target_count,
            ..Draft::default()
        };
        for tree in trees {
            draft.add(tree);
            if draft.records.len().max(draft.weights.len()) > u32::MAX as usize / 2 {
                return None;
            }
        }
        // Each step reads a column, also in a tree that is one leaf.
        let mut columns = vec![(0, false); draft.column_of.len().max(1)];
        for (column, index) in draft.column_of {
            columns[index as usize] = column;
        }
        Some(Descent {
            records: Records::new(draft.records, columns.len())?,
            leaves: draft.leaves,
            weights: draft.weights,
            roots: draft.roots,
            columns,
            target_count,
        })
    }

    /// The sums of the leaves of each row, (R, K) flat for (R, width) flat.
    #[inline(always)]
    pub fn sums(&self, rows: &[f32], width: usize) -> Vec<S> {
        let mut sums = vec![S::default(); rows.len() / width * self.target_count];
        // Whole blocks first, then a half one, and what is left row by row.
        let count = rows.len() / width;
        let (in_blocks, in_halves) = (count / LANES * LANES, count / HALF_LANES * HALF_LANES);
        let (rows, rest) = rows.split_at(in_blocks * width);
        let (block_sums, rest_sums) = sums.split_at_mut(in_blocks * self.target_count);
        self.sum_blocks::<LANES>(rows, width, block_sums);
        let (rows, rest) = rest.split_at((in_halves - in_blocks) * width);
        let (half_sums, rest_sums) =
            rest_sums.split_at_mut((in_halves - in_blocks) * self.target_count);
        self.sum_blocks::<HALF_LANES>(rows, width, half_sums);
        self.sum_rows(rest, width, rest_sums);
        sums
    }

    /// Descend with whole blocks of N rows, with some blocks one tree after the other.
    #[inline(always)]
    fn sum_blocks<const N: usize>(&self, rows: &[f32], width: usize, sums: &mut [S]) {
        let (mut keys, mut block_sums) = (Vec::new(), Vec::new());
        let chunks = rows.chunks(width * N * BLOCKS);
        for (rows, sums) in chunks.zip(sums.chunks_mut(self.target_count * N * BLOCKS)) {
            // The order keys of each block, column by column.
            keys.clear();
            for block in rows.chunks_exact(width * N) {
                for (feature, missing_left) in &self.columns {
                    let mut lanes = [0; N];
                    for (key, row) in lanes.iter_mut().zip(block.chunks_exact(width)) {
                        *key = order_key(row[*feature], *missing_left);
                    }
                    keys.push(lanes);
                }
            }
            // The sums of each block, target by target.
            block_sums.clear();
            block_sums.resize(sums.len() / N, [S::default(); N]);
            for root in &self.roots {
                let blocks = block_sums.chunks_exact_mut(self.target_count);
                for (keys, sums) in keys.chunks_exact(self.columns.len()).zip(blocks) {
                    let at = self.records.descend([root.record; N], root.depth, keys);
                    for (lane, at) in at.into_iter().enumerate() {
                        self.add_leaf(root, at, |target, weight| sums[target][lane] += weight);
                    }
                }
            }
            // The sums of each row.
            let blocks = block_sums.chunks_exact(self.target_count);
            for (rows, columns) in sums.chunks_exact_mut(self.target_count * N).zip(blocks) {
                for (lane, row) in rows.chunks_exact_mut(self.target_count).enumerate() {
                    for (sum, column) in row.iter_mut().zip(columns) {
                        *sum = column[lane];
                    }
                }
            }
        }
    }

    /// Descend with one row after the other, each many trees together.
    #[inline(always)]
    fn sum_rows(&self, rows: &[f32], width: usize, sums: &mut [S]) {
        let mut keys = Vec::with_capacity(self.columns.len());
        let sums = sums.chunks_exact_mut(self.target_count);
        for (row, sums) in rows.chunks_exact(width).zip(sums) {
            keys.clear();
            for (feature, missing_left) in &self.columns {
                keys.push([order_key(row[*feature], *missing_left); LANES]);
            }
            for roots in self.roots.chunks(LANES) {
                // A lane without a tree descends the first one again.
                let mut at = [roots[0].record; LANES];
                for (at, root) in at.iter_mut().zip(roots) {
                    *at = root.record;
                }
                let depth = roots.iter().map(|root| root.depth).max().unwrap_or_default();
                for (root, at) in roots.iter().zip(self.records.descend(at, depth, &keys)) {
                    self.add_leaf(root, at, |target, weight| sums[target] += weight);
                }
            }
        }
    }

    /// Call `add` with each sum and weight of the leaf of a tree.
    #[inline(always)]
    fn add_leaf(&self, root: &Root, at: u32, mut add: impl FnMut(usize, S)) {
        let leaf = self.leaves[at as usize];
        if let Some(target) = root.target {
            return add(target as usize, S::kept(leaf, &self.weights));
        }
        let weights = &self.weights[leaf as usize..][..self.target_count];
        weights.iter().enumerate().for_each(|(target, weight)| add(target, *weight));
    }
}

impl<S: Sum> Draft<S> {
    /// Append the records of a tree, level by level.
    fn add(&mut self, tree: &Tree) {
        let target = match tree.targets[..] {
            [target] => Some(target),
            _ => None,
        };
        let root = self.push_leaves(1);
        // A test of equality leads to its right child twice, and a node may have several parents. Further
        // records of a node are copies of the first, so the nodes below are laid out once.
        let mut first_record: Vec<Option<u32>> = vec![None; tree.nodes.len()];
        let mut waiting = VecDeque::from([(Source::Node(0), root)]);
        while let Some((source, at)) = waiting.pop_front() {
            let (Source::Node(index) | Source::NotAbove(index)) = source;
            let below_equal = matches!(source, Source::NotAbove(_));
            if let (false, Some(first)) = (below_equal, first_record[index as usize]) {
                self.copy(first, at);
                continue;
            }
            if !below_equal {
                first_record[index as usize] = Some(at);
            }
            match tree.nodes[index as usize] {
                Node::Leaf(leaf) => self.put_leaf(tree, leaf, at, target.is_some()),
                Node::Split(split) => {
                    let (left, right) = (Source::Node(split.left), Source::Node(split.right));
                    let (key, missing_left, children) = match (split.equal, below_equal) {
                        (false, _) => (split.key, split.missing_left, [left, right]),
                        (true, false) => {
                            (split.key, split.missing_left, [Source::NotAbove(index), right])
                        }
                        (true, true) => (split.key - 1, !split.missing_left, [right, left]),
                    };
                    let child = self.push_leaves(2);
                    let next = self.column_of.len() as u32;
                    let column = (split.feature as usize, missing_left);
                    let column = *self.column_of.entry(column).or_insert(next);
                    self.records[at as usize] = Record {
                        key,
                        column,
                        child,
                    };
                    waiting.extend(children.into_iter().zip(child..));
                }
            }
        }
        self.roots.push(Root {
            record: root,
            depth: depth(tree),
            target,
        });
    }

    /// Append records that stay where they are. The index of the first.
    fn push_leaves(&mut self, count: usize) -> u32 {
        let first = self.records.len() as u32;
        for child in first..first + count as u32 {
            self.records.push(Record {
                key: i32::MAX,
                column: 0,
                child,
            });
            self.leaves.push(0);
        }
        first
    }

    /// Make the record at `at` one more way into what is at `first`.
    fn copy(&mut self, first: u32, at: u32) {
        let record = self.records[first as usize];
        if record.child != first {
            self.records[at as usize] = record;
        }
        self.leaves[at as usize] = self.leaves[first as usize];
    }

    fn put_leaf(&mut self, tree: &Tree, leaf: u32, at: u32, one_target: bool) {
        if one_target {
            let weight = S::rounded(tree.weights[leaf as usize]);
            self.leaves[at as usize] = weight.keep(&mut self.weights);
            return;
        }
        // A leaf without a weight for a sum adds 0, which changes no sum.
        self.leaves[at as usize] = self.weights.len() as u32;
        let first = self.weights.len();
        self.weights.resize(first + self.target_count, S::default());
        let weights = &tree.weights[leaf as usize * tree.targets.len()..];
        for (target, weight) in tree.targets.iter().zip(weights) {
            self.weights[first + *target as usize] = S::rounded(*weight);
        }
    }
}

/// The steps from the root to its farthest leaf. A test of equality takes up to two.
fn depth(tree: &Tree) -> u32 {
    let mut depths = vec![0_u32; tree.nodes.len()];
    for (at, node) in tree.nodes.iter().enumerate().rev() {
        if let Node::Split(split) = node {
            let below = depths[split.left as usize].max(depths[split.right as usize]);
            depths[at] = below + 1 + u32::from(split.equal);
        }
    }
    depths[0]
}
