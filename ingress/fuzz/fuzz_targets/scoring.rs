//! What trees that were read must be able to do, whatever they were read from.

use turnout_ingress::sys::wide;
use turnout_ingress::accel::trees::Trees;

const ROWS: [usize; 8] = [0, 1, 3, 7, 12, 16, 17, 40];
const ODD: [f32; 9] =
    [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-45, f32::MAX, f32::MIN, 0.5];
const VALUES_MAX: usize = 1 << 20;

/// A refusal goes into a log: some words, and not the file.
pub fn few(words: &str) {
    assert!(!words.is_empty() && words.len() < 500, "{} bytes of words", words.len());
}

/// A score a row for any number of any rows, each way through either kernel; the same bits for a
/// row alone.
pub fn scores_any_rows(trees: &Trees) {
    for count in ROWS {
        if let Some(rows) = rows(trees, count) {
            let scores = wide::score(trees, &rows);
            assert_eq!(scores.len(), count);
            assert_eq!(bits(&scores), bits(&trees.score(&rows)));
            for (row, score) in rows.chunks_exact(trees.width()).zip(&scores) {
                assert!(score.is_nan() || (0.0..=1.0).contains(score), "{score}");
                assert_eq!(bits(&trees.score(row)), bits(&[*score]));
            }
        }
    }
}

/// (count, F) of thresholds, their neighbours and odd numbers; None where that is too many.
pub fn rows(trees: &Trees, count: usize) -> Option<Vec<f32>> {
    let size = trees.width().checked_mul(count).filter(|size| *size <= VALUES_MAX)?;
    let exact = trees.thresholds().flat_map(|(_, values)| values);
    let mut values: Vec<f32> =
        exact.flat_map(|value| [value.next_down(), value, value.next_up()]).collect();
    values.extend(ODD);
    // A step that shares no divisor with most lengths: neighbours in a row are none in the list.
    Some((0..size).map(|place| values[place.wrapping_mul(7_919) % values.len()]).collect())
}

/// As numbers, so that NaN is itself.
pub fn bits(scores: &[f32]) -> Vec<u32> {
    scores.iter().map(|score| score.to_bits()).collect()
}
