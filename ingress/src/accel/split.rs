//! Which arm answers each key: gateway/route.py's `arms_of` for a whole batch.

use crate::accel::ids;

/// Shares are counted in ten-thousandths.
const ALL_BP: u64 = 10_000;

/// An arm's number, and its share where it has one.
#[derive(Clone, Copy)]
pub struct ArmShare {
    /// turnout.v1.Arm.
    pub arm: u8,
    /// Of 10,000 buckets.
    pub share_bp: u64,
}

/// The arm of each key. canary owns the bottom of the buckets, standby the top, rest what is left.
///
/// None where a key does not lie in the buffer.
pub fn arms(
    prefix: &[u8],
    buffer: &[u8],
    starts: &[u32],
    ends: &[u32],
    canary: ArmShare,
    standby: ArmShare,
    rest: u8,
) -> Option<Vec<u8>> {
    let of = |hash: u64| {
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
    Some(hashes.into_iter().map(of).collect())
}
