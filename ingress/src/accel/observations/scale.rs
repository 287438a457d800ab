//! The score bins of rows, as stats/score_scale.py defines them.

use crate::calls::columns::Column;

/// Bins of scores, JOINT_STRIDE of gateway/telemetry/observations.py. The last bin means that the
/// score is not compared.
pub const SCORE_BINS: usize = 64;

/// The unit in which an output is compared with the others: (score - center) / spread.
#[derive(Clone, Copy)]
pub struct Unit {
    /// The median of the output.
    pub center: f32,
    /// What a distance is measured in, above 0.
    pub spread: f32,
}

/// The bins of a model with K outputs.
pub struct ScoreScale {
    /// For each output, the edges between its bins, not falling.
    edges: Vec<Vec<f32>>,
    /// For each output, its first bin.
    first_bins: Vec<usize>,
    /// J, the bins of finite scores. Behind them are those of NaN, +inf and -inf.
    size: usize,
    /// The units of values. None: the outputs are classes, or there is only one.
    units: Option<Vec<Unit>>,
}

impl ScoreScale {
    /// A scale. None: the lengths do not fit each other, or there are too many bins.
    pub fn new(
        edges: Vec<Vec<f32>>,
        first_bins: Vec<usize>,
        size: usize,
        units: Option<Vec<Unit>>,
    ) -> Option<ScoreScale> {
        let outputs = edges.len();
        let ends = edges.iter().zip(&first_bins).map(|(edges, first)| first + edges.len() + 1);
        let fits = outputs > 0
            && first_bins.len() == outputs
            && ends.max().is_some_and(|end| end <= size)
            && size + 4 <= SCORE_BINS
            && units.as_ref().is_none_or(|units| units.len() == outputs);
        fits.then_some(ScoreScale {
            edges,
            first_bins,
            size,
            units,
        })
    }

    /// K, the number of outputs.
    pub fn outputs(&self) -> usize {
        self.edges.len()
    }

    /// The bin of the row with index `row` in a column of (R, K) scores.
    #[inline]
    pub fn bin(&self, scores: &Column<'_, f32>, row: usize) -> usize {
        let outputs = self.edges.len();
        if outputs == 1 {
            let score = scores.at(row);
            return if score.is_finite() {
                self.edges[0].partition_point(|edge| *edge < score)
            } else {
                self.unusual_bin(std::iter::once(score))
            };
        }
        self.bin_of_predicted(scores, row * outputs)
    }

    /// The bin of a row of several outputs that begins at `first`.
    fn bin_of_predicted(&self, scores: &Column<'_, f32>, first: usize) -> usize {
        // The largest output is the predicted one, and the first of equal ones.
        let (mut predicted, mut largest, mut finite) = (0, f32::NEG_INFINITY, true);
        for output in 0..self.edges.len() {
            let score = scores.at(first + output);
            finite &= score.is_finite();
            let scaled = self
                .units
                .as_ref()
                .map_or(score, |units| (score - units[output].center) / units[output].spread);
            if scaled > largest {
                (predicted, largest) = (output, scaled);
            }
        }
        if !finite {
            return self.unusual_bin((0..self.edges.len()).map(|output| scores.at(first + output)));
        }
        let score = scores.at(first + predicted);
        self.first_bins[predicted] + self.edges[predicted].partition_point(|edge| *edge < score)
    }

    /// The bin of a row with a score that is not finite.
    fn unusual_bin(&self, mut scores: impl Iterator<Item = f32> + Clone) -> usize {
        if scores.clone().any(f32::is_nan) {
            self.size
        } else if scores.any(|score| score == f32::INFINITY) {
            self.size + 1
        } else {
            self.size + 2
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bins(scale: &ScoreScale, rows: &[f32]) -> Vec<usize> {
        let bytes: Vec<u8> = rows.iter().flat_map(|score| score.to_le_bytes()).collect();
        let scores = Column::new(&bytes);
        (0..rows.len() / scale.outputs()).map(|row| scale.bin(&scores, row)).collect()
    }

    #[test]
    fn bin_gives_nan_and_infinities_their_own_bins() {
        let scale = ScoreScale::new(vec![vec![0.25, 0.5]], vec![0], 3, None).unwrap();
        let scores = [0.25, 0.3, 0.9, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        assert_eq!(bins(&scale, &scores), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn bin_of_several_outputs_is_that_of_the_largest() {
        let scale = ScoreScale::new(vec![vec![0.5], vec![]], vec![0, 2], 3, None).unwrap();
        let rows = [0.4, 0.1, 0.9, 0.1, 0.2, 0.7, 0.3, 0.3, f32::INFINITY, f32::NAN];
        assert_eq!(bins(&scale, &rows), [0, 1, 2, 0, 3]);
    }

    #[test]
    fn bin_of_several_values_compares_them_in_their_units() {
        let unit = |center, spread| Unit {
            center,
            spread,
        };
        let units = Some(vec![unit(100.0, 10.0), unit(0.0, 1.0)]);
        let scale = ScoreScale::new(vec![vec![], vec![0.5]], vec![0, 1], 3, units).unwrap();
        assert_eq!(bins(&scale, &[105.0, 0.4, 105.0, 0.6, 90.0, 0.5]), [0, 2, 1]);
    }

    #[test]
    fn scale_refuses_lengths_that_do_not_fit() {
        let scale = |edges, first, size| ScoreScale::new(edges, first, size, None).is_some();
        assert!(scale(vec![vec![0.5; 59]], vec![0], 60));
        assert!(!scale(vec![vec![0.5; 60]], vec![0], 61));
        assert!(!scale(vec![vec![0.5], vec![]], vec![0], 3));
        assert!(!scale(vec![vec![0.5], vec![]], vec![0, 3], 3));
        assert!(!scale(vec![], vec![], 0));
    }
}
