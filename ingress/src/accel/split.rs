//! Which arm answers each key: gateway/route.py's `arms_of` for a whole batch.

use crate::accel::ids;

/// Shares are counted in ten-thousandths.
const WHOLE_BP: u64 = 10_000;

/// An arm's number, and its share where it has one.
#[derive(Clone, Copy)]
pub struct Arm {
    /// turnout.v1.Arm.
    pub arm: u8,
    /// Of 10,000 buckets.
    pub share_bp: u64,
}

/// The arm of each key. canary owns the bottom of the buckets, standby the top, rest what is left.
///
/// None where a key does not lie in the buffer.
pub fn arms(
    before: &[u8],
    buffer: &[u8],
    starts: &[u32],
    ends: &[u32],
    canary: Arm,
    standby: Arm,
    rest: u8,
) -> Option<Vec<u8>> {
    let of = |hash: u64| {
        let bucket = hash % WHOLE_BP;
        if bucket < canary.share_bp {
            canary.arm
        } else if bucket >= WHOLE_BP.saturating_sub(standby.share_bp) {
            standby.arm
        } else {
            rest
        }
    };
    let hashes = ids::hashes(before, buffer, starts, ends)?;
    Some(hashes.into_iter().map(of).collect())
}
