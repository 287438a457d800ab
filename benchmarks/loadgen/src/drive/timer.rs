//! Waits shorter than the milliseconds that mio knows, where the system has them.

use mio::{Poll, Token};
use std::io;
use std::time::Duration;

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
        poll.registry().register(
            &mut mio::unix::SourceFd(&file.as_raw_fd()),
            Token(usize::MAX),
            mio::Interest::READABLE,
        )?;
        Ok(Timer { file })
    }

    /// Returns what is left for `Poll::poll`: waits of some milliseconds, or an upper bound.
    pub fn set(&self, wait: Duration) -> io::Result<Duration> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        if wait.is_zero() || wait >= Duration::from_millis(5) {
            return Ok(wait);
        }
        let nothing = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let at = Itimerspec {
            it_interval: nothing,
            it_value: value,
        };
        timerfd_settime(&self.file, TimerfdTimerFlags::empty(), &at)?;
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
