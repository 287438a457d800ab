//! From the sums of the leaves to scores, with the operations and the order of ONNX Runtime.

use std::ops::{AddAssign, Div, Neg, Sub};

/// What becomes of the sums of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    /// They are scores.
    Identity,
    /// Each is the log-odds of a score, by the operator Sigmoid.
    Sigmoid,
    /// Each is the log-odds of a score, by the tree operator's LOGISTIC.
    Logistic,
    /// They are the logarithms of the shares of a whole, by the tree operator's SOFTMAX.
    Softmax,
    /// The one sum is the probability of the second of two classes.
    Complement,
    /// The one sum is the log-odds of the second of two classes.
    TwoLogistic,
    /// The one sum is the score of the second of two classes, and the first has the opposite.
    Opposite,
}

impl Transform {
    /// Whether it makes the scores of two classes of one sum.
    fn is_of_two_classes(self) -> bool {
        matches!(self, Transform::Complement | Transform::TwoLogistic | Transform::Opposite)
    }
}

/// A number in which leaves are summed: float64 where the operator reads float64, and otherwise float32.
pub trait Sum:
    Copy + Default + AddAssign + Sub<Output = Self> + Div<Output = Self> + Neg<Output = Self>
{
    /// A number of the file, which is exact in its type.
    fn rounded(number: f64) -> Self;

    /// The sum as a score.
    fn single(self) -> f32;

    /// All sums as scores.
    fn all_single(sums: Vec<Self>) -> Vec<f32>;

    /// Keep a weight in the 32 bits that a leaf has, or among `weights`. The bits, or its index.
    fn keep(self, weights: &mut Vec<Self>) -> u32;

    /// The weight that `keep` returned `kept` for.
    fn kept(kept: u32, weights: &[Self]) -> Self;
}

impl Sum for f32 {
    #[inline(always)]
    fn rounded(number: f64) -> f32 {
        number as f32
    }

    #[inline(always)]
    fn single(self) -> f32 {
        self
    }

    #[inline(always)]
    fn all_single(sums: Vec<f32>) -> Vec<f32> {
        sums
    }

    fn keep(self, _weights: &mut Vec<f32>) -> u32 {
        self.to_bits()
    }

    #[inline(always)]
    fn kept(kept: u32, _weights: &[f32]) -> f32 {
        f32::from_bits(kept)
    }
}

impl Sum for f64 {
    #[inline(always)]
    fn rounded(number: f64) -> f64 {
        number
    }

    #[inline(always)]
    fn single(self) -> f32 {
        self as f32
    }

    #[inline(always)]
    fn all_single(sums: Vec<f64>) -> Vec<f32> {
        sums.into_iter().map(|sum| sum as f32).collect()
    }

    fn keep(self, weights: &mut Vec<f64>) -> u32 {
        weights.push(self);
        weights.len() as u32 - 1
    }

    #[inline(always)]
    fn kept(kept: u32, weights: &[f64]) -> f64 {
        weights[kept as usize]
    }
}

/// What becomes of the K sums of each row.
#[derive(Clone, Debug)]
pub struct Outputs {
    target_count: usize,
    /// The number of trees if sums are averages.
    divisor: Option<f64>,
    /// Added to each sum. Empty: nothing is.
    base: Vec<f64>,
    transform: Transform,
    /// The scores that are kept, in this order. None: all are.
    picked: Option<Vec<usize>>,
}

impl Outputs {
    /// Outputs of rows with `target_count` sums, which are divided by `divisor` and added to `base`.
    ///
    /// None if `base` has another length than 0 and `target_count`, or there are not as many sums as the
    /// transform needs.
    pub fn new(
        target_count: usize,
        divisor: Option<f64>,
        base: Vec<f64>,
        transform: Transform,
    ) -> Option<Outputs> {
        let fits = (base.is_empty() || base.len() == target_count)
            && target_count > 0
            && (!transform.is_of_two_classes() || target_count == 1);
        fits.then_some(Outputs {
            target_count,
            divisor,
            base,
            transform,
            picked: None,
        })
    }

    /// Keep some of the scores, in this order. None if one of them does not exist.
    pub fn pick(self, columns: &[usize]) -> Option<Outputs> {
        let all = self.count();
        columns.iter().all(|column| *column < all).then(|| Outputs {
            picked: Some(match &self.picked {
                None => columns.to_vec(),
                Some(picked) => columns.iter().map(|column| picked[*column]).collect(),
            }),
            ..self
        })
    }

    /// Put the operator Sigmoid behind the sums. None if they are not left as they are.
    pub fn before_sigmoid(self) -> Option<Outputs> {
        (self.transform == Transform::Identity).then_some(Outputs {
            transform: Transform::Sigmoid,
            ..self
        })
    }

    /// The number of sums of a row.
    pub fn target_count(&self) -> usize {
        self.target_count
    }

    /// What becomes of the sums.
    pub fn transform(&self) -> Transform {
        self.transform
    }

    /// The number of scores of a row.
    pub fn count(&self) -> usize {
        match (&self.picked, self.transform) {
            (Some(picked), _) => picked.len(),
            (None, transform) if transform.is_of_two_classes() => 2,
            (None, _) => self.target_count,
        }
    }

    /// The scores of each row, flat. `sums` is (R, target_count) flat.
    #[inline(always)]
    pub fn scores<S: Sum>(&self, mut sums: Vec<S>) -> Vec<f32> {
        if let Some(divisor) = self.divisor.map(S::rounded) {
            sums.iter_mut().for_each(|sum| *sum = *sum / divisor);
        }
        match &self.base[..] {
            [] => {}
            [base] => {
                let base = S::rounded(*base);
                sums.iter_mut().for_each(|sum| *sum += base);
            }
            bases => {
                for row in sums.chunks_exact_mut(self.target_count) {
                    row.iter_mut().zip(bases).for_each(|(sum, base)| *sum += S::rounded(*base));
                }
            }
        }
        // Scores of two classes are computed before they are rounded.
        match self.transform {
            Transform::Complement => {
                return self.both(&sums, |sum| (S::rounded(1.0) - sum).single(), S::single)
            }
            Transform::Opposite => return self.both(&sums, |sum| (-sum).single(), S::single),
            _ => {}
        }
        let mut sums = S::all_single(sums);
        match self.transform {
            Transform::Identity | Transform::Complement | Transform::Opposite => {}
            Transform::Sigmoid => sums.iter_mut().for_each(|sum| *sum = logistic(*sum)),
            Transform::Logistic => sums.iter_mut().for_each(|sum| *sum = exact_logistic(*sum)),
            Transform::Softmax => sums.chunks_exact_mut(self.target_count).for_each(softmax),
            Transform::TwoLogistic => {
                return self.both(&sums, |sum| exact_logistic(-sum), exact_logistic)
            }
        }
        match &self.picked {
            None => sums,
            Some(picked) => {
                let rows = sums.chunks_exact(self.target_count);
                rows.flat_map(|row| picked.iter().map(|column| row[*column])).collect()
            }
        }
    }

    /// The scores of two classes by one sum.
    #[inline(always)]
    fn both<S: Sum>(
        &self,
        sums: &[S],
        first: impl Fn(S) -> f32,
        second: impl Fn(S) -> f32,
    ) -> Vec<f32> {
        match self.picked.as_deref() {
            Some([1]) => sums.iter().map(|sum| second(*sum)).collect(),
            picked => {
                let picked = picked.unwrap_or(&[0, 1]);
                let of = |sum: &S| [first(*sum), second(*sum)];
                let rows = sums.iter().map(of);
                rows.flat_map(|row| picked.iter().map(move |column| row[*column])).collect()
            }
        }
    }
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

/// 1 / (1 + exp(-x)), as ONNX Runtime's tree operators compute it.
fn exact_logistic(value: f32) -> f32 {
    let quotient = 1.0 / (1.0 + (-value.abs()).exp());
    if value < 0.0 {
        1.0 - quotient
    } else {
        quotient
    }
}

/// exp(x) as a share of the sum of all, as ONNX Runtime's tree operators compute it.
fn softmax(values: &mut [f32]) {
    let highest =
        values.iter().fold(f32::MIN, |most, value| if *value > most { *value } else { most });
    let mut sum = 0.0;
    for value in values.iter_mut() {
        *value = (*value - highest).exp();
        sum += *value;
    }
    values.iter_mut().for_each(|value| *value /= sum);
}
