//! Scores a boosted ensemble of decision trees, many rows at a time and without branches that could
//! be mispredicted.
//!
//! The method is QuickScorer (Lucchese et al., SIGIR 2015). A tree of up to 64 leaves is a word with
//! one bit for each leaf, from left to right. A node that sends a row to the right clears the bits of
//! the leaves to its left. After all nodes, the lowest bit that is still set is the row's leaf. Nodes
//! are sorted by feature and then by threshold, so nodes with a threshold above all values of a block
//! are skipped. If no tree has more than 32 leaves, words have 32 bits, and vectors hold twice as many.
//!
//! Scores are summed in f32 and in the order of the trees, as ONNX Runtime does. Before a version
//! answers calls, `gateway/models/native_trees.py` proves that both give the same bits.

use crate::accel::leaf_rows::{self, Split};
use crate::accel::leaf_words::Word;
use crate::sys::vectors::{self, Vectorized};

/// Most leaves of a tree: the bits of the longest word.
pub const LEAVES_MAX: usize = 64;
/// Most inputs of a row. ONNX Runtime scores versions with more.
pub const WIDTH_MAX: usize = 1 << 16;
/// Rows that are scored together.
const LANES: usize = 16;

/// An inner node. It sends a row with a value above its threshold to the right.
#[derive(Clone, Copy, Debug)]
pub struct Node<W = u64> {
    /// The order key of its threshold.
    pub threshold_key: i32,
    /// The bits of all leaves but those to its left.
    pub leaf_mask: W,
    /// The index of its tree.
    pub tree: u32,
}

/// The nodes of one feature that send a missing value (NaN) the same way, sorted by threshold.
#[derive(Clone, Debug)]
pub struct FeatureNodes<W = u64> {
    /// The index of the input.
    pub feature: usize,
    /// A missing value goes to the left.
    pub missing_left: bool,
    pub nodes: Vec<Node<W>>,
}

/// What becomes of the sum of the leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It is a value of a regression.
    Identity,
    /// It is the log-odds of a probability.
    Sigmoid,
}

/// An ensemble with one output.
#[derive(Clone, Debug)]
pub struct Trees {
    width: usize,
    link: Link,
    base: f32,
    forest: Forest,
}

/// The trees by the length of their words.
#[derive(Clone, Debug)]
enum Forest {
    Narrow(Words<u32>),
    Wide(Words<u64>),
}

/// Trees with words of one length.
#[derive(Clone, Debug)]
struct Words<W: Word> {
    feature_nodes: Vec<FeatureNodes<W>>,
    leaves: Vec<W::Leaves>,
}

impl Trees {
    /// An ensemble of rows with `width` inputs, 1 to WIDTH_MAX. `leaves` has the leaf values of each
    /// tree, from left to right, and `base` is added to their sum.
    ///
    /// None if the width is out of bounds, a tree has more leaves than LEAVES_MAX, or a node names an
    /// input or a tree that does not exist.
    pub fn new(
        width: usize,
        feature_nodes: Vec<FeatureNodes>,
        leaves: &[Vec<f32>],
        base: f32,
        link: Link,
    ) -> Option<Trees> {
        let fits = |group: &FeatureNodes| {
            group.feature < width
                && group.nodes.iter().all(|node| (node.tree as usize) < leaves.len())
        };
        let most = leaves.iter().map(Vec::len).max().unwrap_or_default();
        if !(1..=WIDTH_MAX).contains(&width) || !feature_nodes.iter().all(fits) || most > LEAVES_MAX
        {
            return None;
        }
        let forest = match most {
            0..=32 => Forest::Narrow(Words::new(feature_nodes, leaves)),
            _ => Forest::Wide(Words::new(feature_nodes, leaves)),
        };
        Some(Trees {
            width,
            link,
            base,
            forest,
        })
    }

    /// The number of inputs of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// What becomes of the sum of the leaves.
    pub fn link(&self) -> Link {
        self.link
    }

    /// The thresholds of the nodes, as (input, thresholds), once for each way of missing values.
    pub fn thresholds(&self) -> Vec<(usize, Vec<f32>)> {
        match &self.forest {
            Forest::Narrow(words) => words.thresholds(),
            Forest::Wide(words) => words.thresholds(),
        }
    }

    /// Rows that lead to each leaf that none of `rows` leads to, as far as any row does. Both are
    /// (R, width) flat. The new rows take values that no leaf needs from `rows`, which are some.
    ///
    /// None if more than `most` rows would be needed.
    pub fn leaf_rows(&self, rows: &[f32], most: usize) -> Option<Vec<f32>> {
        match &self.forest {
            Forest::Narrow(words) => leaf_rows::find(words.trees(), self.width, rows, most),
            Forest::Wide(words) => leaf_rows::find(words.trees(), self.width, rows, most),
        }
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
        let mut scores = match &self.forest {
            Forest::Narrow(words) => words.sums(rows, self.width),
            Forest::Wide(words) => words.sums(rows, self.width),
        };
        for score in &mut scores {
            let sum = *score + self.base;
            *score = match self.link {
                Link::Identity => sum,
                Link::Sigmoid => logistic(sum),
            };
        }
        scores
    }
}

impl<W: Word> Words<W> {
    fn new(feature_nodes: Vec<FeatureNodes>, leaves: &[Vec<f32>]) -> Words<W> {
        let shortened = |node: &Node| Node {
            threshold_key: node.threshold_key,
            leaf_mask: W::from_mask(node.leaf_mask),
            tree: node.tree,
        };
        let sorted = |mut group: FeatureNodes| {
            group.nodes.sort_by_key(|node| node.threshold_key);
            FeatureNodes {
                feature: group.feature,
                missing_left: group.missing_left,
                nodes: group.nodes.iter().map(shortened).collect(),
            }
        };
        Words {
            feature_nodes: feature_nodes.into_iter().map(sorted).collect(),
            leaves: leaves.iter().map(|values| W::leaves(values)).collect(),
        }
    }

    fn thresholds(&self) -> Vec<(usize, Vec<f32>)> {
        let values = |group: &FeatureNodes<W>| {
            group.nodes.iter().map(|node| from_order_key(node.threshold_key)).collect()
        };
        self.feature_nodes.iter().map(|group| (group.feature, values(group))).collect()
    }

    /// The nodes of each tree.
    fn trees(&self) -> Vec<Vec<Split>> {
        let mut trees = vec![Vec::new(); self.leaves.len()];
        for group in &self.feature_nodes {
            for node in &group.nodes {
                let left = node.leaf_mask.cleared();
                trees[node.tree as usize].push(Split {
                    feature: group.feature,
                    missing_left: group.missing_left,
                    threshold_key: node.threshold_key,
                    left: (left.trailing_zeros(), 63 - left.leading_zeros()),
                });
            }
        }
        trees
    }

    /// The sums of the leaves of each row.
    #[inline(always)]
    fn sums(&self, rows: &[f32], width: usize) -> Vec<f32> {
        let mut sums = Vec::with_capacity(rows.len() / width);
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
        reachable: &mut Vec<[W; N]>,
        sums: &mut Vec<f32>,
    ) {
        reachable.clear();
        reachable.resize(self.leaves.len(), [W::ALL; N]);
        for group in &self.feature_nodes {
            // A lane without a row has the lowest value, and goes to the left at every node.
            let mut values = [i32::MIN; N];
            for (value, row) in values.iter_mut().zip(rows.chunks_exact(width)) {
                *value = order_key(row[group.feature], group.missing_left);
            }
            let highest = values.iter().fold(i32::MIN, |highest, value| highest.max(*value));
            for node in group.nodes.iter().take_while(|node| node.threshold_key < highest) {
                // Two loops over integers: the compiler makes vector instructions of them.
                let mut masks = [W::ALL; N];
                for (mask, value) in masks.iter_mut().zip(&values) {
                    *mask = node.leaf_mask.where_right(*value > node.threshold_key);
                }
                for (leaves, mask) in reachable[node.tree as usize].iter_mut().zip(&masks) {
                    *leaves &= *mask;
                }
            }
        }
        // Add up each row's leaf of every tree.
        let mut block_sums = [0.0_f32; N];
        for (reachable, leaves) in reachable.iter().zip(&self.leaves) {
            for lane in 0..N {
                block_sums[lane] += reachable[lane].lowest_of(leaves);
            }
        }
        sums.extend(&block_sums[..rows.len() / width]);
    }
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

/// The float of an order key. It is NaN for keys beyond those of the infinities.
pub fn from_order_key(key: i32) -> f32 {
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
        let grown = |width| Trees::new(width, Vec::new(), &[vec![0.5]], 0.0, Link::Sigmoid);
        for width in [0, WIDTH_MAX + 1, usize::MAX / LANES + 1, usize::MAX] {
            assert!(grown(width).is_none(), "{width}");
        }
        for width in [1, WIDTH_MAX] {
            let scores = grown(width).map(|trees| trees.score(&vec![f32::NAN; 3 * width]));
            assert_eq!(scores, Some(vec![logistic(0.5); 3]));
        }
    }
}
