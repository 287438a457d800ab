//! Scores an ensemble of decision trees, many rows at a time and without branches that could be
//! mispredicted.
//!
//! `word_trees` is the layout for trees of few leaves, and `descent` the one for all others. Leaves are
//! summed in f32 and in the order of the trees, as ONNX Runtime does, and `outputs` makes scores of the
//! sums. Before a version answers calls, `gateway/models/native_scorer.py` proves that both give the
//! same bits.

mod cuts;
mod descent;
mod leaf_rows;
mod node_lists;
pub mod onnx;
mod onnx_graph;
pub mod outputs;
pub mod tree;
mod word_trees;

use std::collections::BTreeMap;

use crate::accel::trees::cuts::Cuts;
use crate::accel::trees::descent::Descent;
use crate::accel::trees::outputs::{Outputs, Sum};
use crate::accel::trees::tree::Tree;
use crate::accel::trees::word_trees::{WordTrees, LEAVES_MAX};
use crate::sys::vectors::{self, Vectorized};

/// Most inputs of a row. ONNX Runtime scores versions with more.
pub const WIDTH_MAX: usize = 1 << 16;
/// Most sums of a row. ONNX Runtime scores versions with more.
pub const TARGETS_MAX: usize = 1 << 10;

/// An ensemble of trees that is ready to score rows.
#[derive(Clone, Debug)]
pub struct Trees {
    width: usize,
    outputs: Outputs,
    trees: Vec<Tree>,
    /// Trees that compare float64 numbers have cuts, and their layout compares ranks.
    cuts: Option<Cuts>,
    layout: Layout,
}

/// The trees as they are scored.
#[derive(Clone, Debug)]
enum Layout {
    Words(WordTrees<f32>),
    Descent(Descent<f32>),
    DoubleWords(WordTrees<f64>),
    DoubleDescent(Descent<f64>),
}

impl Trees {
    /// An ensemble of rows with `width` float32 inputs, 1 to WIDTH_MAX.
    ///
    /// None if the width or the number of sums is out of bounds, or a tree is not valid.
    pub fn new(width: usize, trees: Vec<Tree>, outputs: Outputs) -> Option<Trees> {
        Trees::with_cuts(width, trees, outputs, None)
    }

    /// As `new`. With `cuts` the inputs are float64, and the trees compare their ranks.
    pub fn with_cuts(
        width: usize,
        trees: Vec<Tree>,
        outputs: Outputs,
        cuts: Option<Cuts>,
    ) -> Option<Trees> {
        let targets = outputs.target_count();
        if !(1..=WIDTH_MAX).contains(&width)
            || !(1..=TARGETS_MAX).contains(&targets)
            || !trees.iter().all(|tree| tree.is_valid(width, targets))
        {
            return None;
        }
        let by_order = |tree: &Tree| !tree.is_shared() && tree.splits().all(|split| !split.equal);
        let by_order = trees.iter().all(by_order);
        let most = trees.iter().map(Tree::leaf_count).max().unwrap_or_default();
        let few_leaves = most <= LEAVES_MAX && by_order;
        let layout = match (few_leaves, cuts.is_some()) {
            (true, false) => Layout::Words(WordTrees::new(&trees, targets)),
            (false, false) => Layout::Descent(Descent::new(&trees, targets)?),
            (true, true) => Layout::DoubleWords(WordTrees::new(&trees, targets)),
            (false, true) => Layout::DoubleDescent(Descent::new(&trees, targets)?),
        };
        Some(Trees {
            width,
            outputs,
            trees,
            cuts,
            layout,
        })
    }

    /// Keep some of the scores, in this order. None if one of them does not exist.
    pub fn pick(self, columns: &[usize]) -> Option<Trees> {
        Some(Trees {
            outputs: self.outputs.pick(columns)?,
            ..self
        })
    }

    /// The number of inputs of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// What becomes of the sums of the leaves.
    pub fn outputs(&self) -> &Outputs {
        &self.outputs
    }

    /// Whether the inputs are float64.
    pub fn is_double(&self) -> bool {
        self.cuts.is_some()
    }

    /// The thresholds of the nodes, as (input, thresholds).
    pub fn thresholds(&self) -> Vec<(usize, Vec<f64>)> {
        if let Some(cuts) = &self.cuts {
            return cuts.thresholds().map(|(feature, cuts)| (feature, cuts.to_vec())).collect();
        }
        let mut by_feature: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for split in self.trees.iter().flat_map(Tree::splits) {
            let threshold = from_order_key(split.key);
            // Nothing is below the lowest infinity.
            if !threshold.is_nan() {
                let thresholds = by_feature.entry(split.feature as usize).or_default();
                thresholds.push(f64::from(threshold));
            }
        }
        by_feature.into_iter().collect()
    }

    /// Rows that lead to each leaf that none of `rows` leads to, as far as any row does. Both are
    /// (R, width) flat. The new rows take values that no leaf needs from `rows`, which are some.
    ///
    /// None if more than `most` rows would be needed.
    pub fn leaf_rows(&self, rows: &[f64], most: usize) -> Option<Vec<f64>> {
        let Some(cuts) = &self.cuts else {
            let rows: Vec<f32> = rows.iter().map(|value| *value as f32).collect();
            let found = leaf_rows::find(&self.trees, self.width, &rows, most, single_bounds)?;
            return Some(found.into_iter().map(f64::from).collect());
        };
        let ranks = cuts.ranks(rows, self.width);
        let bounds = |feature| cuts.bounds(feature);
        let found = leaf_rows::find(&self.trees, self.width, &ranks, most, bounds)?;
        Some(cuts.rows_of(&found, self.width, rows))
    }

    /// Score rows with the widest vectors that this processor has. `rows` is (R, width) flat, and the
    /// result is (R, K) flat for the K scores of `outputs`.
    pub fn score(&self, rows: &[f32]) -> Vec<f32> {
        match &self.cuts {
            None => self.score_keys(rows),
            Some(cuts) => self.score_keys(&cuts.ranks(rows, self.width)),
        }
    }

    /// As `score`. Trees that read float32 get these rows rounded.
    pub fn score_double(&self, rows: &[f64]) -> Vec<f32> {
        match &self.cuts {
            None => self.score_keys(&rows.iter().map(|value| *value as f32).collect::<Vec<_>>()),
            Some(cuts) => self.score_keys(&cuts.ranks(rows, self.width)),
        }
    }

    /// Score rows of numbers or ranks, whatever the layout compares.
    fn score_keys(&self, rows: &[f32]) -> Vec<f32> {
        match &self.layout {
            Layout::Words(trees) => vectors::run(self.run_of(trees, rows)),
            Layout::Descent(trees) => vectors::run(self.run_of(trees, rows)),
            Layout::DoubleWords(trees) => vectors::run(self.run_of(trees, rows)),
            Layout::DoubleDescent(trees) => vectors::run(self.run_of(trees, rows)),
        }
    }

    fn run_of<'a, L>(&'a self, trees: &'a L, rows: &'a [f32]) -> Run<'a, L> {
        Run {
            trees,
            outputs: &self.outputs,
            width: self.width,
            rows,
        }
    }
}

/// The lowest and the highest order key of float32 numbers.
fn single_bounds(_feature: u32) -> (i32, i32) {
    (order_key(f32::NEG_INFINITY, true), order_key(f32::INFINITY, true))
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

/// The scoring of some rows by trees in one layout, which is compiled for several kinds of vectors.
struct Run<'a, L> {
    trees: &'a L,
    outputs: &'a Outputs,
    width: usize,
    rows: &'a [f32],
}

impl<S: Sum> Vectorized for Run<'_, WordTrees<S>> {
    type Output = Vec<f32>;
    const FOR_AVX512: bool = true;

    fn run_portable(self) -> Vec<f32> {
        self.run_avx2()
    }

    #[inline(always)]
    fn run_avx2(self) -> Vec<f32> {
        self.outputs.scores(self.trees.sums(self.rows, self.width))
    }
}

impl<S: Sum> Vectorized for Run<'_, Descent<S>> {
    type Output = Vec<f32>;

    fn run_portable(self) -> Vec<f32> {
        self.run_avx2()
    }

    #[inline(always)]
    fn run_avx2(self) -> Vec<f32> {
        self.outputs.scores(self.trees.sums(self.rows, self.width))
    }
}

#[cfg(test)]
mod tests {
    use super::outputs::{logistic, Transform};
    use super::tree::Node;
    use super::*;

    #[test]
    fn trees_refuse_a_width_out_of_bounds() {
        let leaf = Tree {
            nodes: vec![Node::Leaf(0)],
            targets: vec![0],
            weights: vec![0.5],
        };
        let outputs = Outputs::new(1, None, Vec::new(), Transform::Sigmoid).expect("one sum");
        let grown = |width| Trees::new(width, vec![leaf.clone()], outputs.clone());
        for width in [0, WIDTH_MAX + 1, usize::MAX] {
            assert!(grown(width).is_none(), "{width}");
        }
        for width in [1, WIDTH_MAX] {
            let scores = grown(width).map(|trees| trees.score(&vec![f32::NAN; 3 * width]));
            assert_eq!(scores, Some(vec![logistic(0.5); 3]));
        }
    }
}
