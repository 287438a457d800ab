//! Limits on the frames that a peer may send: floods of frames that cost the server and not the peer.
//!
//! `StreamEvents` counts every frame but HEADERS and DATA with content, which have limits of their own:
//! `streams_max` and the flow-control window.

use crate::sys::nghttp2::{frame_type, ACK};

/// A PING that follows another one sooner than this, while nothing was sent, is a strike.
const PING_NS_MIN: i64 = 5_000_000_000;
/// Strikes allowed, as in gRPC's own servers. One more ends the connection.
const PING_STRIKES_MAX: u32 = 2;
/// SETTINGS, PRIORITY, empty DATA and other frames: 500 at once, and 50 a second in the long run.
const OTHER_FRAMES: TokenBucket = TokenBucket::new(500, 50);
/// Answers to frames of closed streams: 100 at once, and 20 a second in the long run.
const LATE_FRAME_ANSWERS: TokenBucket = TokenBucket::new(100, 20);
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
    late_frame_answers: TokenBucket,
    last_ping_ns: i64,
    ping_strikes: u32,
}

impl FrameLimits {
    /// The limits of a new connection. RST_STREAM (CVE-2023-44487): so many a second in the long run,
    /// and twice as many at once.
    pub fn new(resets_s_max: i64) -> FrameLimits {
        FrameLimits {
            rst_streams: TokenBucket::new(2 * resets_s_max, resets_s_max),
            other_frames: OTHER_FRAMES,
            window_updates: WINDOW_UPDATES,
            late_frame_answers: LATE_FRAME_ANSWERS,
            last_ping_ns: i64::MIN / 2,
            ping_strikes: 0,
        }
    }

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
            frame_type::RST_STREAM => {
                // A client that ends a call may send a PING with it.
                self.last_ping_ns = i64::MIN / 2;
                (!self.rst_streams.take(now_ns)).then_some("too_many_resets")
            }
            frame_type::WINDOW_UPDATE => {
                (!self.window_updates.take(now_ns)).then_some("too_many_window_updates")
            }
            _ => (!self.other_frames.take(now_ns)).then_some("too_many_frames"),
        }
    }

    /// Whether a frame of a closed stream is answered. The others are ignored.
    pub fn answers_late_frame(&mut self, now_ns: i64) -> bool {
        self.late_frame_answers.take(now_ns)
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
        let mut limits = FrameLimits::new(1_000);
        let refused: Vec<_> =
            (0..4).map(|n| limits.exceeded(frame_type::PING, 0, n).is_some()).collect();
        assert_eq!(refused, [false, false, false, true]);
        let mut limits = FrameLimits::new(1_000);
        assert!((0..100).all(|n| limits.exceeded(frame_type::PING, 0, n * 6 * SECOND).is_none()));
        let mut limits = FrameLimits::new(1_000);
        assert!((0..100).all(|n| {
            limits.sent();
            limits.exceeded(frame_type::PING, 0, n).is_none()
        }));
    }

    #[test]
    fn frame_limits_allow_a_ping_with_each_reset() {
        let mut limits = FrameLimits::new(1_000);
        assert!((0..100).all(|n| {
            limits.exceeded(frame_type::RST_STREAM, 0, n).is_none()
                && limits.exceeded(frame_type::PING, 0, n).is_none()
        }));
    }

    #[test]
    fn frame_limits_allow_a_burst_of_resets_and_a_steady_rate() {
        let mut limits = FrameLimits::new(1_000);
        let reset = frame_type::RST_STREAM;
        let first = (0..5_000).take_while(|_| limits.exceeded(reset, 0, 1).is_none()).count();
        assert_eq!(first, 2_000);
        let mut limits = FrameLimits::new(1_000);
        assert!((0..20_000).all(|n| limits.exceeded(reset, 0, n * SECOND / 900).is_none()));
    }
}
