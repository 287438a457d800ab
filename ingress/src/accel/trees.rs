//! One boosted ensemble, scored many rows at a time: every node of every tree is asked about every
//! row, without a branch that could be mispredicted.
//!
//! The way of QuickScorer (Lucchese et al., SIGIR 2015): a tree of up to 32 leaves is a word with a
//! bit a leaf, from left to right. A node that sends a row to the right rules out its left leaves;
//! after all nodes the lowest bit left is the row's leaf. Nodes lie feature by feature, thresholds
//! growing, so those above all of a block's values are never asked.
//!
//! Sums run over trees in their order, in f32, as ONNX Runtime's do; `gateway/trees.py` holds both
//! against each other, bit for bit, before this one answers anybody.

/// Leaves of a tree: the bits of a word.
pub const LEAVES_MAX: usize = 32;
/// Inputs of a row; a wider version is ONNX Runtime's.
pub const WIDTH_MAX: usize = 1 << 16;
const LANES: usize = 16;

/// One inner node: rows with `a value above it` keep only the leaves in `keep`.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Its threshold, as `ordered` has it.
    pub order: i32,
    /// Bits of the tree's leaves that are not in the node's left part.
    pub leaf_mask: u32,
    /// Which tree.
    pub tree: u32,
}

/// Nodes of one feature that treat a missing value alike, thresholds growing.
#[derive(Clone, Debug)]
pub struct FeatureNodes {
    /// The input's place.
    pub feature: usize,
    /// NaN goes to the left.
    pub missing_left: bool,
    /// Its nodes.
    pub nodes: Vec<Node>,
}

/// A whole ensemble with one output, and the sigmoid behind it.
#[derive(Clone, Debug)]
pub struct Trees {
    width: usize,
    feature_nodes: Vec<FeatureNodes>,
    leaves: Vec<[f32; LEAVES_MAX]>,
    base: f32,
}

impl Trees {
    /// width: inputs of a row, 1 to WIDTH_MAX. leaves: the values of each tree's, from left to right.
    ///
    /// None for another width, and where a run names an input or a tree that is not there.
    pub fn new(
        width: usize,
        mut feature_nodes: Vec<FeatureNodes>,
        leaves: Vec<[f32; LEAVES_MAX]>,
        base: f32,
    ) -> Option<Trees> {
        let fits = |nodes_of_feature: &FeatureNodes| {
            nodes_of_feature.feature < width
                && nodes_of_feature.nodes.iter().all(|node| (node.tree as usize) < leaves.len())
        };
        if !(1..=WIDTH_MAX).contains(&width) || !feature_nodes.iter().all(fits) {
            return None;
        }
        for nodes_of_feature in &mut feature_nodes {
            nodes_of_feature.nodes.sort_by_key(|node| node.order);
        }
        Some(Trees {
            width,
            feature_nodes,
            leaves,
            base,
        })
    }

    /// F.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Each run's input, and its nodes' thresholds.
    pub fn thresholds(&self) -> impl Iterator<Item = (usize, Vec<f32>)> + '_ {
        let values = |nodes_of_feature: &FeatureNodes| {
            nodes_of_feature.nodes.iter().map(|node| from_order_key(node.order)).collect()
        };
        self.feature_nodes
            .iter()
            .map(move |nodes_of_feature| (nodes_of_feature.feature, values(nodes_of_feature)))
    }

    /// Score rows, (R, F) flat: R probabilities.
    #[inline(always)] // into sys::wide, which compiles it once more
    pub fn score(&self, rows: &[f32]) -> Vec<f32> {
        let mut scores = Vec::with_capacity(rows.len() / self.width);
        let (mut wide, mut half) = (Vec::new(), Vec::new());
        let mut blocks = rows.chunks_exact(self.width * LANES);
        for block in &mut blocks {
            self.score_block::<LANES>(block, &mut wide, &mut scores);
        }
        let left = blocks.remainder();
        match left.len() / self.width {
            0 => {}
            1 => self.score_block::<1>(left, &mut Vec::new(), &mut scores),
            2..=4 => self.score_block::<4>(left, &mut Vec::new(), &mut scores),
            5..=8 => self.score_block::<8>(left, &mut half, &mut scores),
            _ => self.score_block::<LANES>(left, &mut wide, &mut scores),
        }
        scores
    }

    /// Score up to N rows. open: scratch, each tree's leaves that are still possible.
    #[inline(always)]
    fn score_block<const N: usize>(
        &self,
        rows: &[f32],
        open: &mut Vec<[u32; N]>,
        scores: &mut Vec<f32>,
    ) {
        open.clear();
        open.resize(self.leaves.len(), [u32::MAX; N]);
        for nodes_of_feature in &self.feature_nodes {
            // A lane without a row goes to the left everywhere.
            let mut values = [i32::MIN; N];
            for (value, row) in values.iter_mut().zip(rows.chunks_exact(self.width)) {
                *value = order_key(row[nodes_of_feature.feature], nodes_of_feature.missing_left);
            }
            let top = values.iter().fold(i32::MIN, |top, value| top.max(*value));
            for node in nodes_of_feature.nodes.iter().take_while(|node| node.order < top) {
                // Two loops and integers: so the compiler makes vectors of them, not branches.
                let mut kept = [0_u32; N];
                for (kept, value) in kept.iter_mut().zip(&values) {
                    *kept = u32::from(*value > node.order).wrapping_sub(1) | node.leaf_mask;
                }
                for (open, kept) in open[node.tree as usize].iter_mut().zip(&kept) {
                    *open &= kept;
                }
            }
        }
        let mut sums = [0.0_f32; N];
        for (open, leaves) in open.iter().zip(&self.leaves) {
            for lane in 0..N {
                sums[lane] += leaves[open[lane].trailing_zeros() as usize & (LEAVES_MAX - 1)];
            }
        }
        let count = rows.len() / self.width;
        scores.extend(sums[..count].iter().map(|sum| logistic(sum + self.base)));
    }
}

/// A number whose order among others is that of the floats. NaN, where it goes to the left, is
/// below all of them; else above.
#[inline(always)]
pub fn order_key(value: f32, missing_left: bool) -> i32 {
    if value.is_nan() {
        return if missing_left { i32::MIN } else { i32::MAX };
    }
    let bits = (value + 0.0).to_bits() as i32; // -0.0 becomes 0.0
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

/// The float that `ordered` made this number of.
fn from_order_key(order: i32) -> f32 {
    f32::from_bits((order ^ ((order >> 31) as u32 >> 1) as i32) as u32)
}

/// 1 / (1 + exp(-x)), as ONNX Runtime's kernels approximate it (MlasComputeLogistic).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_inputs_and_they_fit_in_memory() {
        let grown = |width| Trees::new(width, Vec::new(), vec![[0.5; LEAVES_MAX]], 0.0);
        for width in [0, WIDTH_MAX + 1, usize::MAX / LANES + 1, usize::MAX] {
            assert!(grown(width).is_none(), "{width}");
        }
        for width in [1, WIDTH_MAX] {
            let scores = grown(width).map(|trees| trees.score(&vec![f32::NAN; 3 * width]));
            assert_eq!(scores, Some(vec![logistic(0.5); 3]));
        }
    }
}
