//! The traffic split: which arm answers each sticky key of a batch, as gateway/predict/routing.py has
//! it for one key.

use crate::accel::ids;

/// All buckets, in basis points.
const ALL_BP: u64 = 10_000;

/// An arm and its share of the buckets.
#[derive(Clone, Copy)]
pub struct ArmShare {
    /// turnout.v1.Arm.
    pub arm: u8,
    /// The share in basis points.
    pub share_bp: u64,
}

/// The arm of each key. The canary has the lowest buckets, the standby the highest, and `rest` all
/// others. `prefix` is the salt that is hashed before each key. Key i is buffer[starts[i]..ends[i]].
///
/// None if a key does not lie in the buffer.
pub fn arms(
    prefix: &[u8],
    buffer: &[u8],
    starts: &[u32],
    ends: &[u32],
    canary: ArmShare,
    standby: ArmShare,
    rest: u8,
) -> Option<Vec<u8>> {
    let arm_of = |hash: u64| {
        let bucket = hash % ALL_BP;
        if bucket < canary.share_bp {
            canary.arm
        } else if bucket >= ALL_BP.saturating_sub(standby.share_bp) {
            standby.arm
        } else {
            rest
        }
    };
    let hashes = ids::hashes(prefix, buffer, starts, ends)?;
    Some(hashes.into_iter().map(arm_of).collect())
}
