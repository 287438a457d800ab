//! The layout for trees of few leaves: QuickScorer (Lucchese et al., SIGIR 2015).
//!
//! A tree is a word with one bit for each leaf, from left to right. A node that sends a row to the
//! right clears the bits of the leaves to its left. After all nodes, the lowest bit that is still set
//! is the row's leaf. Nodes are sorted by feature and then by threshold, so nodes with a threshold
//! above all values of a block are skipped.

use std::collections::BTreeMap;

use crate::accel::trees::order_key;
use crate::accel::trees::outputs::Sum;
use crate::accel::trees::tree::{Node, Tree};

/// Most leaves of a tree: the bits of a word.
pub const LEAVES_MAX: usize = 32;
/// Rows that are scored together.
const LANES: usize = 16;

/// An inner node. It sends a row with a value above its threshold to the right.
#[derive(Clone, Copy, Debug)]
struct MaskNode {
    threshold_key: i32,
    /// The bits of all leaves but those to its left.
    leaf_mask: u32,
    /// The index of its tree.
    tree: u32,
}

/// The nodes of one feature that send a missing value (NaN) the same way, sorted by threshold.
#[derive(Clone, Debug)]
struct FeatureNodes {
    feature: usize,
    missing_left: bool,
    nodes: Vec<MaskNode>,
}

/// What the leaves of a tree add to one sum.
#[derive(Clone, Debug)]
struct LeafColumn<S> {
    tree: u32,
    target: u32,
    leaves: [S; LEAVES_MAX],
}

impl<S: Sum> LeafColumn<S> {
    /// The weight of the leaf whose bit is the lowest that is set.
    #[inline(always)]
    fn lowest(&self, reachable: u32) -> S {
        self.leaves[reachable.trailing_zeros() as usize & (LEAVES_MAX - 1)]
    }
}

/// Trees as words.
#[derive(Clone, Debug)]
pub struct WordTrees<S> {
    feature_nodes: Vec<FeatureNodes>,
    /// In the order of the trees.
    leaf_columns: Vec<LeafColumn<S>>,
    tree_count: usize,
    target_count: usize,
}

impl<S: Sum> WordTrees<S> {
    /// Lay out trees, which are valid, compare by order alone and have at most LEAVES_MAX leaves.
    pub fn new(trees: &[Tree], target_count: usize) -> WordTrees<S> {
        let mut groups: BTreeMap<(u32, bool), Vec<MaskNode>> = BTreeMap::new();
        let mut leaf_columns = Vec::with_capacity(trees.len());
        for (index, tree) in trees.iter().enumerate() {
            // The leaves below each node: children come after their parents.
            let mut leaves = vec![(0_u32, 0_u32); tree.nodes.len()];
            for (at, node) in tree.nodes.iter().enumerate().rev() {
                leaves[at] = match node {
                    Node::Leaf(leaf) => (*leaf, *leaf),
                    Node::Split(split) => {
                        (leaves[split.left as usize].0, leaves[split.right as usize].1)
                    }
                };
            }
            for split in tree.splits() {
                let (first, last) = leaves[split.left as usize];
                groups.entry((split.feature, split.missing_left)).or_default().push(MaskNode {
                    threshold_key: split.key,
                    leaf_mask: !(u32::MAX >> (31 - (last - first)) << first),
                    tree: index as u32,
                });
            }
            for (column, target) in tree.targets.iter().enumerate() {
                let weights = tree.weights.iter().skip(column).step_by(tree.targets.len());
                let mut leaves = [S::default(); LEAVES_MAX];
                leaves
                    .iter_mut()
                    .zip(weights)
                    .for_each(|(leaf, weight)| *leaf = S::rounded(*weight));
                leaf_columns.push(LeafColumn {
                    tree: index as u32,
                    target: *target,
                    leaves,
                });
            }
        }
        let sorted = |((feature, missing_left), mut nodes): (_, Vec<MaskNode>)| {
            nodes.sort_by_key(|node| node.threshold_key);
            FeatureNodes {
                feature: feature as usize,
                missing_left,
                nodes,
            }
        };
        WordTrees {
            feature_nodes: groups.into_iter().map(sorted).collect(),
            leaf_columns,
            tree_count: trees.len(),
            target_count,
        }
    }

    /// The sums of the leaves of each row, (R, K) flat for (R, width) flat.
    #[inline(always)]
    pub fn sums(&self, rows: &[f32], width: usize) -> Vec<S> {
        let mut sums = Vec::with_capacity(rows.len() / width * self.target_count);
        let (mut scratch, mut half_scratch) = (Vec::new(), Vec::new());
        let mut blocks = rows.chunks_exact(width * LANES);
        for block in &mut blocks {
            self.sum_block::<LANES>(block, width, &mut scratch, &mut sums);
        }
        // The rest goes through the smallest block that holds it.
        let rest = blocks.remainder();
        match rest.len() / width {
            0 => {}
            1 => self.sum_block::<1>(rest, width, &mut Vec::new(), &mut sums),
            2..=4 => self.sum_block::<4>(rest, width, &mut Vec::new(), &mut sums),
            5..=8 => self.sum_block::<8>(rest, width, &mut half_scratch, &mut sums),
            _ => self.sum_block::<LANES>(rest, width, &mut scratch, &mut sums),
        }
        sums
    }

    /// Add up the leaves of up to N rows. `reachable` is scratch: for each tree and row, the leaves
    /// that no node has cleared yet.
    #[inline(always)]
    fn sum_block<const N: usize>(
        &self,
        rows: &[f32],
        width: usize,
        reachable: &mut Vec<[u32; N]>,
        sums: &mut Vec<S>,
    ) {
        reachable.clear();
        reachable.resize(self.tree_count, [u32::MAX; N]);
        for group in &self.feature_nodes {
            // A lane without a row has the lowest value, and goes to the left at every node.
            let mut values = [i32::MIN; N];
            for (value, row) in values.iter_mut().zip(rows.chunks_exact(width)) {
                *value = order_key(row[group.feature], group.missing_left);
            }
            let highest = values.iter().fold(i32::MIN, |highest, value| highest.max(*value));
            for node in group.nodes.iter().take_while(|node| node.threshold_key < highest) {
                // Two loops over integers: the compiler makes vector instructions of them.
                let mut masks = [u32::MAX; N];
                for (mask, value) in masks.iter_mut().zip(&values) {
                    // The mask for a row that goes to the right, and all bits for any other.
                    let keep = u32::from(*value > node.threshold_key).wrapping_sub(1);
                    *mask = node.leaf_mask | keep;
                }
                for (leaves, mask) in reachable[node.tree as usize].iter_mut().zip(&masks) {
                    *leaves &= *mask;
                }
            }
        }
        let row_count = rows.len() / width;
        if self.target_count == 1 {
            // Add up each row's leaf of every tree, which has one column of leaves.
            let mut block_sums = [S::default(); N];
            for (reachable, column) in reachable.iter().zip(&self.leaf_columns) {
                for lane in 0..N {
                    block_sums[lane] += column.lowest(reachable[lane]);
                }
            }
            sums.extend(&block_sums[..row_count]);
            return;
        }
        let mut block_sums = vec![[S::default(); N]; self.target_count];
        for column in &self.leaf_columns {
            let reachable = &reachable[column.tree as usize];
            let target_sums = &mut block_sums[column.target as usize];
            for lane in 0..N {
                target_sums[lane] += column.lowest(reachable[lane]);
            }
        }
        for row in 0..row_count {
            sums.extend(block_sums.iter().map(|target_sums| target_sums[row]));
        }
    }
}
