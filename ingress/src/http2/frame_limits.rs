//! When a connection asks for more than is reasonable: floods of frames that cost us and not it.

use crate::sys::nghttp2::{kind, ACK};

/// Pings closer together than this, while we sent nothing, are strikes.
const PING_NS_MIN: i64 = 5_000_000_000;
/// gRPC's own number: one more and the connection is asked to leave.
const STRIKES_MAX: u32 = 2;
/// Calls reset by the client: so many at once, and so many a second for ever.
const RESETS: Bucket = Bucket::new(2_000, 1_000);
/// SETTINGS, PRIORITY, empty DATA and the like.
const OTHERS: Bucket = Bucket::new(500, 50);
/// WINDOW_UPDATE: a proper client sends one or two a reply.
const WINDOWS: Bucket = Bucket::new(200_000, 400_000);

/// So many at once, and so many a second.
struct Bucket {
    each_ns: i64,
    burst_ns: i64,
    /// When all that was taken will have been earned.
    earned_ns: i64,
}

impl Bucket {
    const fn new(burst: i64, a_second: i64) -> Bucket {
        let each_ns = 1_000_000_000 / a_second;
        Bucket {
            each_ns,
            burst_ns: burst * each_ns,
            earned_ns: 0,
        }
    }

    fn take(&mut self, now_ns: i64) -> bool {
        let earned_ns = self.earned_ns.max(now_ns);
        if earned_ns - now_ns >= self.burst_ns {
            return false;
        }
        self.earned_ns = earned_ns + self.each_ns;
        true
    }
}

/// One connection's account.
pub struct FrameLimits {
    resets: Bucket,
    others: Bucket,
    windows: Bucket,
    last_ping_ns: i64,
    strikes: u32,
}

impl Default for FrameLimits {
    fn default() -> FrameLimits {
        FrameLimits {
            resets: RESETS,
            others: OTHERS,
            windows: WINDOWS,
            last_ping_ns: i64::MIN / 2,
            strikes: 0,
        }
    }
}

impl FrameLimits {
    /// A frame came; what GOAWAY should say, once it was one too many.
    pub fn frame(&mut self, frame: u8, flags: u8, now_ns: i64) -> Option<&'static str> {
        match frame {
            kind::PING if flags & ACK != 0 => None,
            kind::PING => {
                let soon = now_ns - self.last_ping_ns < PING_NS_MIN;
                self.last_ping_ns = now_ns;
                self.strikes += u32::from(soon);
                (self.strikes > STRIKES_MAX).then_some("too_many_pings")
            }
            kind::RST_STREAM => (!self.resets.take(now_ns)).then_some("too_many_resets"),
            kind::WINDOW_UPDATE => {
                (!self.windows.take(now_ns)).then_some("too_many_window_updates")
            }
            _ => (!self.others.take(now_ns)).then_some("too_many_frames"),
        }
    }

    /// We sent headers or data: a ping may ask about them.
    pub fn sent(&mut self) {
        self.strikes = 0;
        self.last_ping_ns = i64::MIN / 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn the_fourth_ping_in_a_row_is_too_many() {
        let mut frame_limits = FrameLimits::default();
        let said: Vec<_> = (0..4).map(|n| frame_limits.frame(kind::PING, 0, n).is_some()).collect();
        assert_eq!(said, [false, false, false, true]);
        let mut frame_limits = FrameLimits::default();
        assert!((0..100).all(|n| frame_limits.frame(kind::PING, 0, n * 6 * SECOND).is_none()));
        let mut frame_limits = FrameLimits::default();
        assert!((0..100).all(|n| {
            frame_limits.sent();
            frame_limits.frame(kind::PING, 0, n).is_none()
        }));
    }

    #[test]
    fn resets_are_allowed_in_bursts_and_at_a_pace() {
        let mut frame_limits = FrameLimits::default();
        let first =
            (0..5_000).take_while(|_| frame_limits.frame(kind::RST_STREAM, 0, 1).is_none()).count();
        assert_eq!(first, 2_000);
        let mut frame_limits = FrameLimits::default();
        assert!((0..20_000)
            .all(|n| frame_limits.frame(kind::RST_STREAM, 0, n * SECOND / 900).is_none()));
    }
}
