//! Waits shorter than a millisecond.
//!
//! mio rounds timeouts up to whole milliseconds. On Linux a timerfd wakes the poll earlier.

use mio::Poll;
use std::io;
use std::time::Duration;

/// The token of the timer's events.
#[cfg(target_os = "linux")]
const TIMER: mio::Token = mio::Token(usize::MAX);
/// Waits of this length and more need no timer: a millisecond does not matter for them.
#[cfg(target_os = "linux")]
const ROUNDED_WAIT: Duration = Duration::from_millis(5);

pub struct Timer {
    #[cfg(target_os = "linux")]
    file: std::os::fd::OwnedFd,
}

#[cfg(target_os = "linux")]
impl Timer {
    pub fn new(poll: &Poll) -> io::Result<Timer> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        use std::os::fd::AsRawFd;
        let file = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        let mut source = mio::unix::SourceFd(&file.as_raw_fd());
        poll.registry().register(&mut source, TIMER, mio::Interest::READABLE)?;
        Ok(Timer { file })
    }

    /// Wakes the poll after `wait`. Returns the timeout to give to `Poll::poll`, which is not
    /// shorter than `wait`.
    pub fn set(&self, wait: Duration) -> io::Result<Duration> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        if wait.is_zero() || wait >= ROUNDED_WAIT {
            return Ok(wait);
        }
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let after = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
        let time = Itimerspec { it_interval: once, it_value: after };
        timerfd_settime(&self.file, TimerfdTimerFlags::empty(), &time)?;
        Ok(wait + Duration::from_millis(1))
    }
}

#[cfg(not(target_os = "linux"))]
impl Timer {
    pub fn new(_: &Poll) -> io::Result<Timer> {
        Ok(Timer {})
    }

    pub fn set(&self, wait: Duration) -> io::Result<Duration> {
        Ok(wait)
    }
}
