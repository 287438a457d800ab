//! Scores a boosted ensemble of decision trees, many rows at a time and without branches that could
//! be mispredicted.
//!
//! The method is QuickScorer (Lucchese et al., SIGIR 2015). A tree of up to 32 leaves is a word with
//! one bit for each leaf, from left to right. A node that sends a row to the right clears the bits of
//! the leaves to its left. After all nodes, the lowest bit that is still set is the row's leaf. Nodes
//! are sorted by feature and then by threshold, so nodes with a threshold above all values of a block
//! are skipped.
//!
//! Scores are summed in f32 and in the order of the trees, as ONNX Runtime does. Before a version
//! answers calls, `gateway/models/native_trees.py` proves that both give the same bits.

use std::collections::BTreeMap;

use crate::sys::vectors::{self, Vectorized};

/// Most leaves of a tree: the bits of a word.
pub const LEAVES_MAX: usize = 32;
/// Most inputs of a row. ONNX Runtime scores versions with more.
pub const WIDTH_MAX: usize = 1 << 16;
/// The order keys of the infinities.
const LOWEST_KEY: i32 = -0x7f80_0001;
const HIGHEST_KEY: i32 = 0x7f80_0000;
/// Rows that are scored together.
const LANES: usize = 16;

/// An inner node. It sends a row with a value above its threshold to the right.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// The order key of its threshold.
    pub threshold_key: i32,
    /// The bits of all leaves but those to its left.
    pub leaf_mask: u32,
    /// The index of its tree.
    pub tree: u32,
}

/// The nodes of one feature that send a missing value (NaN) the same way, sorted by threshold.
#[derive(Clone, Debug)]
pub struct FeatureNodes {
    /// The index of the input.
    pub feature: usize,
    /// A missing value goes to the left.
    pub missing_left: bool,
    pub nodes: Vec<Node>,
}

/// An ensemble with one output.
#[derive(Clone, Debug)]
pub struct Trees {
    width: usize,
    feature_nodes: Vec<FeatureNodes>,
    leaves: Vec<[f32; LEAVES_MAX]>,
    base: f32,
    /// The score is the logistic function of the sum, and otherwise the sum.
    logistic: bool,
}

impl Trees {
    /// An ensemble of rows with `width` inputs, 1 to WIDTH_MAX. `leaves` has the leaf values of each
    /// tree, from left to right, and `base` is added to their sum.
    ///
    /// None if the width is out of bounds, or a node names an input or a tree that does not exist.
    pub fn new(
        width: usize,
        mut feature_nodes: Vec<FeatureNodes>,
        leaves: Vec<[f32; LEAVES_MAX]>,
        base: f32,
        logistic: bool,
    ) -> Option<Trees> {
        let fits = |group: &FeatureNodes| {
            group.feature < width
                && group.nodes.iter().all(|node| (node.tree as usize) < leaves.len())
        };
        if !(1..=WIDTH_MAX).contains(&width) || !feature_nodes.iter().all(fits) {
            return None;
        }
        for group in &mut feature_nodes {
            group.nodes.sort_by_key(|node| node.threshold_key);
        }
        Some(Trees {
            width,
            feature_nodes,
            leaves,
            base,
            logistic,
        })
    }

    /// The number of inputs of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The thresholds of the nodes, as (input, thresholds), once for each way of missing values.
    pub fn thresholds(&self) -> impl Iterator<Item = (usize, Vec<f32>)> + '_ {
        let values = |group: &FeatureNodes| {
            group.nodes.iter().map(|node| from_order_key(node.threshold_key)).collect()
        };
        self.feature_nodes.iter().map(move |group| (group.feature, values(group)))
    }

    /// The number of trees.
    pub fn count(&self) -> usize {
        self.leaves.len()
    }

    /// Rows that lead to the leaves, flat with `width` values each: one row for each leaf that numbers
    /// reach, or for `most` of them, evenly spaced. A row is `base` with the values that the leaf needs.
    pub fn leaf_rows(&self, base: &[f32], most: usize) -> Vec<f32> {
        let trees = self.nodes_of_trees();
        let total: usize = trees.iter().map(|nodes| nodes.len() + 1).sum();
        let (mut rows, mut passed) = (Vec::new(), 0);
        for nodes in &trees {
            for leaf in 0..=nodes.len() {
                // Of more leaves than rows, those are taken at which a further row is due.
                let due = (passed + 1) * most.min(total) / total > passed * most.min(total) / total;
                passed += 1;
                if !due {
                    continue;
                }
                if let Some(bounds) = leaf_bounds(nodes, leaf as u32) {
                    let first = rows.len();
                    rows.extend_from_slice(base);
                    for (feature, (low, high)) in bounds {
                        let usual = order_key(base[feature], true).clamp(low, high);
                        rows[first + feature] = from_order_key(usual);
                    }
                }
            }
        }
        rows
    }

    /// The nodes of each tree, with their features.
    fn nodes_of_trees(&self) -> Vec<Vec<(usize, Node)>> {
        let mut trees = vec![Vec::new(); self.leaves.len()];
        for group in &self.feature_nodes {
            for node in &group.nodes {
                trees[node.tree as usize].push((group.feature, *node));
            }
        }
        trees
    }

    /// Score rows with the widest vectors that this processor has. `rows` is (R, width) flat, and the
    /// result has R scores.
    pub fn score(&self, rows: &[f32]) -> Vec<f32> {
        vectors::run(Score {
            trees: self,
            rows,
        })
    }

    /// Score rows with the vectors that every processor has. The bits are those of `score`.
    #[inline(always)]
    pub fn score_portable(&self, rows: &[f32]) -> Vec<f32> {
        let mut scores = Vec::with_capacity(rows.len() / self.width);
        let (mut scratch, mut half_scratch) = (Vec::new(), Vec::new());
        let mut blocks = rows.chunks_exact(self.width * LANES);
        for block in &mut blocks {
            self.score_block::<LANES>(block, &mut scratch, &mut scores);
        }
        // The rest goes through the smallest block that holds it.
        let rest = blocks.remainder();
        match rest.len() / self.width {
            0 => {}
            1 => self.score_block::<1>(rest, &mut Vec::new(), &mut scores),
            2..=4 => self.score_block::<4>(rest, &mut Vec::new(), &mut scores),
            5..=8 => self.score_block::<8>(rest, &mut half_scratch, &mut scores),
            _ => self.score_block::<LANES>(rest, &mut scratch, &mut scores),
        }
        scores
    }

    /// Score up to N rows. `reachable` is scratch: for each tree and row, the leaves that no node has
    /// cleared yet.
    #[inline(always)]
    fn score_block<const N: usize>(
        &self,
        rows: &[f32],
        reachable: &mut Vec<[u32; N]>,
        scores: &mut Vec<f32>,
    ) {
        reachable.clear();
        reachable.resize(self.leaves.len(), [u32::MAX; N]);
        for group in &self.feature_nodes {
            // A lane without a row has the lowest value, and goes to the left at every node.
            let mut values = [i32::MIN; N];
            for (value, row) in values.iter_mut().zip(rows.chunks_exact(self.width)) {
                *value = order_key(row[group.feature], group.missing_left);
            }
            let highest = values.iter().fold(i32::MIN, |highest, value| highest.max(*value));
            for node in group.nodes.iter().take_while(|node| node.threshold_key < highest) {
                // Two loops over integers: the compiler makes vector instructions of them.
                let mut masks = [0_u32; N];
                for (mask, value) in masks.iter_mut().zip(&values) {
                    *mask = u32::from(*value > node.threshold_key).wrapping_sub(1) | node.leaf_mask;
                }
                for (leaves, mask) in reachable[node.tree as usize].iter_mut().zip(&masks) {
                    *leaves &= mask;
                }
            }
        }
        // Add up each row's leaf of every tree.
        let mut sums = [0.0_f32; N];
        for (reachable, leaves) in reachable.iter().zip(&self.leaves) {
            for lane in 0..N {
                sums[lane] += leaves[reachable[lane].trailing_zeros() as usize & (LEAVES_MAX - 1)];
            }
        }
        let count = rows.len() / self.width;
        let sums = sums[..count].iter().map(|sum| sum + self.base);
        match self.logistic {
            true => scores.extend(sums.map(logistic)),
            false => scores.extend(sums),
        }
    }
}

/// The order keys, from the least to the greatest, that each feature must have on the way to a leaf.
/// None: no number leads there.
fn leaf_bounds(nodes: &[(usize, Node)], leaf: u32) -> Option<BTreeMap<usize, (i32, i32)>> {
    // A node has the leaves from `first` to `middle` on its left, and those up to `end` on its right. The
    // right ends where the left of the nearest node above ends.
    let span = |node: &Node| (node.leaf_mask.trailing_ones(), node.leaf_mask.count_zeros());
    let mut bounds = BTreeMap::new();
    for (feature, node) in nodes {
        let (first, left) = span(node);
        let middle = first + left;
        let end = nodes
            .iter()
            .map(|(_, other)| (span(other).0, span(other).0 + span(other).1))
            .filter(|(start, stop)| *start <= first && *stop > middle)
            .map(|(_, stop)| stop)
            .min()
            .unwrap_or(LEAVES_MAX as u32);
        let (low, high) = bounds.entry(*feature).or_insert((LOWEST_KEY, HIGHEST_KEY));
        if (first..middle).contains(&leaf) {
            *high = node.threshold_key.min(*high);
        } else if (middle..end).contains(&leaf) {
            *low = node.threshold_key.saturating_add(1).max(*low);
        }
    }
    bounds.values().all(|(low, high)| low <= high).then_some(bounds)
}

/// An integer that orders like the float. NaN is below all numbers if it goes to the left, and above
/// them otherwise.
#[inline(always)]
pub fn order_key(value: f32, missing_left: bool) -> i32 {
    if value.is_nan() {
        return if missing_left { i32::MIN } else { i32::MAX };
    }
    let bits = (value + 0.0).to_bits() as i32; // makes 0.0 of -0.0
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

/// The float of an order key.
fn from_order_key(key: i32) -> f32 {
    f32::from_bits((key ^ ((key >> 31) as u32 >> 1) as i32) as u32)
}

/// 1 / (1 + exp(-x)), by the approximation of ONNX Runtime's kernels (MlasComputeLogistic).
#[inline(always)]
pub fn logistic(value: f32) -> f32 {
    const ALPHA: [f64; 5] = [
        4.37031012579801e-11,
        1.15627324459942e-7,
        6.08574864600143e-5,
        8.51377133304701e-3,
        2.48287947061529e-1,
    ];
    const BETA: [f64; 6] = [
        6.10247389755681e-13,
        5.76102136993427e-9,
        6.29106785017040e-6,
        1.70198817374094e-3,
        1.16817656904453e-1,
        9.93151921023180e-1,
    ];
    let value = value.clamp(-18.0, 18.0);
    let square = value * value;
    let horner = |terms: &[f64]| {
        let first = terms[0] as f32;
        terms[1..].iter().fold(first, |sum, term| sum.mul_add(square, *term as f32))
    };
    let quotient = horner(&ALPHA) * value / horner(&BETA);
    (quotient + 0.5).clamp(0.0, 1.0)
}

/// `Trees::score_portable` as a computation that is compiled twice.
struct Score<'a> {
    trees: &'a Trees,
    rows: &'a [f32],
}

impl Vectorized for Score<'_> {
    type Output = Vec<f32>;

    fn run_portable(self) -> Vec<f32> {
        self.trees.score_portable(self.rows)
    }

    #[inline(always)]
    fn run_avx2(self) -> Vec<f32> {
        self.trees.score_portable(self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_refuse_a_width_out_of_bounds() {
        let grown = |width| Trees::new(width, Vec::new(), vec![[0.5; LEAVES_MAX]], 0.0, true);
        for width in [0, WIDTH_MAX + 1, usize::MAX / LANES + 1, usize::MAX] {
            assert!(grown(width).is_none(), "{width}");
        }
        for width in [1, WIDTH_MAX] {
            let scores = grown(width).map(|trees| trees.score(&vec![f32::NAN; 3 * width]));
            assert_eq!(scores, Some(vec![logistic(0.5); 3]));
        }
    }

    #[test]
    fn order_keys_of_the_infinities_are_the_outermost_of_numbers() {
        assert_eq!(order_key(f32::NEG_INFINITY, false), LOWEST_KEY);
        assert_eq!(order_key(f32::INFINITY, false), HIGHEST_KEY);
    }
}
