//! epoll, eventfd, timerfd and the monotonic clock: what std does not have.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Monotonic nanoseconds: the same clock as Python's `time.monotonic_ns`.
pub fn now_ns() -> i64 {
    let mut at = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `at` is a valid timespec to write to; CLOCK_MONOTONIC always exists on Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut at) };
    at.tv_sec * 1_000_000_000 + at.tv_nsec
}

/// Whose turn it is, and for what.
#[derive(Clone, Copy)]
pub struct Ready {
    /// What the descriptor was added with.
    pub token: u64,
    /// Bytes, connections, or an end can be read.
    pub read: bool,
    /// There is room to write.
    pub write: bool,
}

/// A descriptor of our own for what `fd` names; whoever lent it keeps its own.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a descriptor that is not open is an error.
    let copy = checked(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) })?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// One epoll instance.
pub struct Poller {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

const READ: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP) as u32;
const WRITE: u32 = libc::EPOLLOUT as u32;
const GONE: u32 = (libc::EPOLLERR | libc::EPOLLHUP | libc::EPOLLRDHUP) as u32;

impl Poller {
    /// Ask the kernel for one.
    pub fn new() -> io::Result<Poller> {
        // SAFETY: no pointers; the result is checked before it is owned.
        let fd = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Poller {
            // SAFETY: a fresh descriptor that nobody else owns.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            events: vec![
                libc::epoll_event {
                    events: 0,
                    u64: 0
                };
                256
            ],
        })
    }

    /// Watch `fd` for reading, writing or neither, under `token`.
    pub fn add(&self, fd: RawFd, token: u64, read: bool, write: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, read, write)
    }

    /// Change what `fd` is watched for.
    pub fn modify(&self, fd: RawFd, token: u64, read: bool, write: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, read, write)
    }

    /// Watch `fd` no more.
    pub fn remove(&self, fd: RawFd) {
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, false, false);
    }

    fn control(&self, op: i32, fd: RawFd, token: u64, read: bool, write: bool) -> io::Result<()> {
        let wanted = if read { READ } else { 0 } | if write { WRITE } else { 0 };
        let mut event = libc::epoll_event {
            events: wanted,
            u64: token,
        };
        // SAFETY: `event` lives through the call; a descriptor that is no longer open is an error.
        checked(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), op, fd, &mut event) })?;
        Ok(())
    }

    /// Wait up to `ms` (-1: for ever) and put who is ready into `ready`.
    pub fn wait(&mut self, ms: i32, ready: &mut Vec<Ready>) {
        ready.clear();
        let room = self.events.len() as i32;
        // SAFETY: the buffer holds `room` events and lives through the call.
        let seen =
            unsafe { libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), room, ms) };
        for event in &self.events[..seen.max(0) as usize] {
            let flags = event.events;
            ready.push(Ready {
                token: event.u64,
                read: flags & (READ | GONE) != 0,
                write: flags & WRITE != 0,
            });
        }
    }
}

/// An eventfd: rung by one thread, heard by another.
pub struct Waker {
    fd: OwnedFd,
}

impl Waker {
    /// A silent one.
    pub fn new() -> io::Result<Waker> {
        // SAFETY: no pointers; the result is checked before it is owned.
        let fd = checked(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
        Ok(Waker {
            // SAFETY: a fresh descriptor that nobody else owns.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
        })
    }

    /// Make it readable.
    pub fn wake(&self) {
        let one = 1_u64;
        // SAFETY: eight bytes that live through the call; a full counter rings already.
        unsafe { libc::write(self.fd.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Make it unreadable.
    pub fn clear(&self) {
        let mut rung = 0_u64;
        // SAFETY: eight bytes that live through the call; a silent one answers EAGAIN.
        unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut rung).cast(), 8) };
    }
}

impl AsRawFd for Poller {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// A timerfd: readable once its moment has come.
pub struct Timer {
    fd: OwnedFd,
}

impl Timer {
    /// One that is not set.
    pub fn new() -> io::Result<Timer> {
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: no pointers; the result is checked before it is owned.
        let fd = checked(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })?;
        Ok(Timer {
            // SAFETY: a fresh descriptor that nobody else owns.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
        })
    }

    /// Become readable at `at_ns` of `now_ns`'s clock, and not before; 0: never.
    pub fn set(&self, at_ns: i64) {
        let at = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: libc::timespec {
                tv_sec: at_ns / 1_000_000_000,
                tv_nsec: at_ns % 1_000_000_000,
            },
        };
        let (fd, before) = (self.fd.as_raw_fd(), std::ptr::null_mut());
        // SAFETY: `at` lives through the call; what was set before is asked for by a null pointer.
        unsafe { libc::timerfd_settime(fd, libc::TFD_TIMER_ABSTIME, &at, before) };
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
