//! Limits on the frames that a peer may send: floods of frames that cost the server and not the peer.
//!
//! `StreamEvents` counts every frame but HEADERS and DATA with content, which have limits of their own:
//! `streams_max` and the flow-control window.

use crate::sys::nghttp2::{frame_type, ACK};

/// A PING that follows another one sooner than this, while nothing was sent, is a strike.
const PING_NS_MIN: i64 = 5_000_000_000;
/// Strikes allowed, as in gRPC's own servers. One more ends the connection.
const PING_STRIKES_MAX: u32 = 2;
/// RST_STREAM: 2,000 at once, and 1,000 a second in the long run (CVE-2023-44487).
const RST_STREAMS: TokenBucket = TokenBucket::new(2_000, 1_000);
/// SETTINGS, PRIORITY, empty DATA and other frames: 500 at once, and 50 a second in the long run.
const OTHER_FRAMES: TokenBucket = TokenBucket::new(500, 50);
/// WINDOW_UPDATE: an ordinary client sends one or two a reply.
const WINDOW_UPDATES: TokenBucket = TokenBucket::new(200_000, 400_000);

/// A token bucket that stores one number: the time at which it will be full again.
struct TokenBucket {
    token_ns: i64,
    capacity_ns: i64,
    full_at_ns: i64,
}

impl TokenBucket {
    const fn new(capacity: i64, tokens_a_second: i64) -> TokenBucket {
        let token_ns = 1_000_000_000 / tokens_a_second;
        TokenBucket {
            token_ns,
            capacity_ns: capacity * token_ns,
            full_at_ns: 0,
        }
    }

    /// Take one token. False: the bucket is empty.
    fn take(&mut self, now_ns: i64) -> bool {
        let full_at_ns = self.full_at_ns.max(now_ns);
        if full_at_ns - now_ns >= self.capacity_ns {
            return false;
        }
        self.full_at_ns = full_at_ns + self.token_ns;
        true
    }
}

/// The limits of one connection, and how much of them it has used.
pub struct FrameLimits {
    rst_streams: TokenBucket,
    other_frames: TokenBucket,
    window_updates: TokenBucket,
    last_ping_ns: i64,
    ping_strikes: u32,
}

impl Default for FrameLimits {
    fn default() -> FrameLimits {
        FrameLimits {
            rst_streams: RST_STREAMS,
            other_frames: OTHER_FRAMES,
            window_updates: WINDOW_UPDATES,
            last_ping_ns: i64::MIN / 2,
            ping_strikes: 0,
        }
    }
}

impl FrameLimits {
    /// Count a received frame. Returns the debug data for GOAWAY if the frame exceeds a limit.
    pub fn exceeded(&mut self, frame: u8, flags: u8, now_ns: i64) -> Option<&'static str> {
        match frame {
            frame_type::PING if flags & ACK != 0 => None,
            frame_type::PING => {
                let too_soon = now_ns - self.last_ping_ns < PING_NS_MIN;
                self.last_ping_ns = now_ns;
                self.ping_strikes += u32::from(too_soon);
                (self.ping_strikes > PING_STRIKES_MAX).then_some("too_many_pings")
            }
            frame_type::RST_STREAM => (!self.rst_streams.take(now_ns)).then_some("too_many_resets"),
            frame_type::WINDOW_UPDATE => {
                (!self.window_updates.take(now_ns)).then_some("too_many_window_updates")
            }
            _ => (!self.other_frames.take(now_ns)).then_some("too_many_frames"),
        }
    }

    /// Note that headers or data were sent. A PING may follow them, so its strikes are forgotten.
    pub fn sent(&mut self) {
        self.ping_strikes = 0;
        self.last_ping_ns = i64::MIN / 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn frame_limits_refuse_the_fourth_ping_in_a_row() {
        let mut limits = FrameLimits::default();
        let refused: Vec<_> =
            (0..4).map(|n| limits.exceeded(frame_type::PING, 0, n).is_some()).collect();
        assert_eq!(refused, [false, false, false, true]);
        let mut limits = FrameLimits::default();
        assert!((0..100).all(|n| limits.exceeded(frame_type::PING, 0, n * 6 * SECOND).is_none()));
        let mut limits = FrameLimits::default();
        assert!((0..100).all(|n| {
            limits.sent();
            limits.exceeded(frame_type::PING, 0, n).is_none()
        }));
    }

    #[test]
    fn frame_limits_allow_a_burst_of_resets_and_a_steady_rate() {
        let mut limits = FrameLimits::default();
        let reset = frame_type::RST_STREAM;
        let first = (0..5_000).take_while(|_| limits.exceeded(reset, 0, 1).is_none()).count();
        assert_eq!(first, 2_000);
        let mut limits = FrameLimits::default();
        assert!((0..20_000).all(|n| limits.exceeded(reset, 0, n * SECOND / 900).is_none()));
    }
}
