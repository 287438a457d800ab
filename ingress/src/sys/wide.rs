//! The same safe code, compiled once more for processors with wider vectors.

use crate::accel::ids::{self, BODY_BYTES};
use crate::accel::trees::Trees;

/// Score rows, (R, F) flat, with the widest vectors there are here; the same bits either way.
pub fn score(trees: &Trees, rows: &[f32]) -> Vec<f32> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has what this function is compiled for, as asked just now.
        return unsafe { score_avx2(trees, rows) };
    }
    trees.score(rows)
}

/// Trees::score, inlined here and so compiled for AVX2 and FMA.
///
/// # Safety
///
/// The processor must have both.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn score_avx2(trees: &Trees, rows: &[f32]) -> Vec<f32> {
    trees.score(rows)
}

/// ids::prediction_ids, as many at a time as fit the widest vectors there are here.
pub fn prediction_ids(
    key: &[u8; 32],
    body: &[u8; BODY_BYTES],
    first: u32,
    key_hashes: &[u64],
    held_out: &[u8],
) -> Vec<u8> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what this function is compiled for, as asked just now.
        return unsafe { prediction_ids_avx2(key, body, first, key_hashes, held_out) };
    }
    ids::prediction_ids::<4>(key, body, first, key_hashes, held_out)
}

/// ids::prediction_ids, inlined here and so compiled for AVX2.
///
/// # Safety
///
/// The processor must have it.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn prediction_ids_avx2(
    key: &[u8; 32],
    body: &[u8; BODY_BYTES],
    first: u32,
    key_hashes: &[u64],
    held_out: &[u8],
) -> Vec<u8> {
    ids::prediction_ids::<8>(key, body, first, key_hashes, held_out)
}
