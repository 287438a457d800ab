//! What any ensemble that was read has to fulfil, whatever file it was read from.

use turnout_ingress::accel::trees::outputs::Transform;
use turnout_ingress::accel::trees::Trees;

const ROWS: [usize; 8] = [0, 1, 3, 7, 12, 16, 17, 40];
const ODD: [f32; 9] =
    [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-45, f32::MAX, f32::MIN, 0.5];
const VALUES_MAX: usize = 1 << 20;

/// Check a refusal: it goes into a log, so it is short.
pub fn is_short(message: &str) {
    assert!(!message.is_empty() && message.len() < 500, "{} bytes", message.len());
}

/// Score any number of any rows, with wide and with portable vectors, together and one by one. All
/// ways have to give the same bits.
pub fn scores_any_rows(trees: &Trees) {
    for count in ROWS {
        if let Some(rows) = rows(trees, count) {
            let (scores, outputs) = (trees.score(&rows), trees.outputs());
            assert_eq!(scores.len(), count * outputs.count());
            assert_eq!(bits(&scores), bits(&trees.score_portable(&rows)));
            let any = matches!(outputs.transform(), Transform::Identity | Transform::Complement);
            let rows = rows.chunks_exact(trees.width());
            for (row, scores) in rows.zip(scores.chunks_exact(outputs.count())) {
                let fits = |score: &f32| any || score.is_nan() || (0.0..=1.0).contains(score);
                assert!(scores.iter().all(fits), "{scores:?}");
                assert_eq!(bits(&trees.score_portable(row)), bits(scores));
            }
        }
    }
}

/// Find rows to the leaves. They have whole rows, and lead the search no further.
pub fn finds_leaf_rows(trees: &Trees) {
    if let Some(mut known) = rows(trees, 7) {
        let found = trees.leaf_rows(&known, usize::MAX).expect("no bound");
        assert_eq!(found.len() % trees.width(), 0);
        known.extend(&found);
        assert_eq!(trees.leaf_rows(&known, 0), Some(Vec::new()));
    }
}

/// (count, F) values: thresholds, their neighbours and special numbers. None if there are too many.
pub fn rows(trees: &Trees, count: usize) -> Option<Vec<f32>> {
    let size = trees.width().checked_mul(count).filter(|size| *size <= VALUES_MAX)?;
    let exact = trees.thresholds().into_iter().flat_map(|(_, values)| values);
    let mut values: Vec<f32> =
        exact.flat_map(|value| [value.next_down(), value, value.next_up()]).collect();
    values.extend(ODD);
    // This step shares no divisor with most lengths, so neighbours in a row are not neighbours in the
    // list.
    Some((0..size).map(|index| values[index.wrapping_mul(7_919) % values.len()]).collect())
}

/// The bits of scores, because NaN does not equal NaN.
pub fn bits(scores: &[f32]) -> Vec<u32> {
    scores.iter().map(|score| score.to_bits()).collect()
}
