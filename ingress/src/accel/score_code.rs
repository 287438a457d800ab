//! A score in 16 bits, as prediction ids carry it. journal/score_code.py describes the bits.

/// Steps between the probabilities 0 and 1.
const PROBABILITY_STEPS: f64 = 65_535.0;
/// The exponent of infinity, in the upper half of a float32.
const INFINITE: u16 = 0x7f80;

/// How the scores of a version are written.
#[derive(Clone, Copy)]
pub struct ScoreRule {
    /// The first output is a probability. A score outside 0 to 1 is a bfloat16 all the same.
    pub probability: bool,
    /// A score at or above it is a positive decision.
    pub threshold: f64,
}

/// The 16 bits of a score, and whether they are a bfloat16.
#[inline(always)]
pub fn code_of_score(score: f32, probability: bool) -> (u16, bool) {
    if probability && (0.0..=1.0).contains(&score) {
        return ((f64::from(score) * PROBABILITY_STEPS + 0.5) as u16, false);
    }
    let bits = score.to_bits();
    let truncated = (bits >> 16) as u16;
    if score.is_nan() {
        return (truncated | 0x40, true);
    }
    // Round to the nearest, and to even. The largest numbers would become infinite.
    let rounded = (u64::from(bits) + 0x7fff + u64::from(bits >> 16 & 1)) >> 16;
    let rounded = rounded as u16;
    (if rounded & 0x7fff == INFINITE { truncated } else { rounded }, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_score_writes_probabilities_in_steps_and_others_as_bfloat16() {
        assert_eq!(code_of_score(0.0, true), (0, false));
        assert_eq!(code_of_score(1.0, true), (65_535, false));
        assert_eq!(code_of_score(0.5, true), (32_768, false));
        assert_eq!(code_of_score(1.5, true), (0x3fc0, true));
        assert_eq!(code_of_score(0.5, false), (0x3f00, true));
        assert_eq!(code_of_score(-2.0, false), (0xc000, true));
    }

    #[test]
    fn code_of_score_keeps_numbers_finite_and_others_as_they_are() {
        assert_eq!(code_of_score(f32::MAX, false), (0x7f7f, true));
        assert_eq!(code_of_score(f32::INFINITY, true), (INFINITE, true));
        assert!(f32::from_bits(u32::from(code_of_score(f32::NAN, true).0) << 16).is_nan());
    }
}
