//! System calls that std does not have: epoll, eventfd, timerfd and the monotonic clock.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Monotonic nanoseconds, by the clock of Python's `time.monotonic_ns`.
pub fn now_ns() -> i64 {
    let mut at = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `at` is a valid timespec. CLOCK_MONOTONIC always exists on Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut at) };
    at.tv_sec * 1_000_000_000 + at.tv_nsec
}

/// A descriptor that is ready, and for what.
#[derive(Clone, Copy)]
pub struct Ready {
    /// The token under which the descriptor was added.
    pub token: u64,
    /// Reading will not block: there are bytes, a connection, or the end.
    pub readable: bool,
    /// Writing will not block.
    pub writable: bool,
}

/// Duplicate a descriptor. The caller keeps `fd`.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no pointers. A descriptor that is not open is an error.
    let copy = checked(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) })?;
    // SAFETY: a new descriptor without another owner.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// The user id of the process at the other end of a Unix socket.
pub fn peer_user(fd: RawFd) -> io::Result<u32> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    let (into, level) = ((&raw mut peer).cast(), libc::SOL_SOCKET);
    // SAFETY: `peer` and `length` outlive the call, and `length` is the size of `peer`.
    checked(unsafe { libc::getsockopt(fd, level, libc::SO_PEERCRED, into, &mut length) })?;
    Ok(peer.uid)
}

/// The user id of this process.
pub fn own_user() -> u32 {
    // SAFETY: it has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

/// An epoll instance.
pub struct Poller {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

const READ: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP) as u32;
const WRITE: u32 = libc::EPOLLOUT as u32;
const CLOSED: u32 = (libc::EPOLLERR | libc::EPOLLHUP | libc::EPOLLRDHUP) as u32;

impl Poller {
    /// A new instance that watches nothing.
    pub fn new() -> io::Result<Poller> {
        // SAFETY: no pointers. The result is checked before it is owned.
        let fd = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Poller {
            // SAFETY: a new descriptor without another owner.
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

    /// Watch `fd` for reading, writing, both or neither, under `token`.
    pub fn add(&self, fd: RawFd, token: u64, readable: bool, writable: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, readable, writable)
    }

    /// Change what `fd` is watched for.
    pub fn modify(&self, fd: RawFd, token: u64, readable: bool, writable: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, readable, writable)
    }

    /// Stop watching `fd`.
    pub fn remove(&self, fd: RawFd) {
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, false, false);
    }

    fn control(
        &self,
        op: i32,
        fd: RawFd,
        token: u64,
        readable: bool,
        writable: bool,
    ) -> io::Result<()> {
        let interest = if readable { READ } else { 0 } | if writable { WRITE } else { 0 };
        let mut event = libc::epoll_event {
            events: interest,
            u64: token,
        };
        // SAFETY: `event` outlives the call. A descriptor that is not open is an error.
        checked(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), op, fd, &mut event) })?;
        Ok(())
    }

    /// Wait up to `ms` milliseconds, or without limit for -1, and put what is ready into `ready`.
    pub fn wait(&mut self, ms: i32, ready: &mut Vec<Ready>) {
        ready.clear();
        let capacity = self.events.len() as i32;
        // SAFETY: the buffer holds `capacity` events and outlives the call.
        let count = unsafe {
            libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), capacity, ms)
        };
        for event in &self.events[..count.max(0) as usize] {
            let flags = event.events;
            ready.push(Ready {
                token: event.u64,
                readable: flags & (READ | CLOSED) != 0,
                writable: flags & WRITE != 0,
            });
        }
    }
}

/// An eventfd, by which one thread wakes another.
pub struct Waker {
    fd: OwnedFd,
}

impl Waker {
    /// A new eventfd, which is not readable.
    pub fn new() -> io::Result<Waker> {
        // SAFETY: no pointers. The result is checked before it is owned.
        let fd = checked(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
        Ok(Waker {
            // SAFETY: a new descriptor without another owner.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
        })
    }

    /// Make the eventfd readable.
    pub fn wake(&self) {
        let increment = 1_u64;
        // SAFETY: eight bytes that outlive the call. If the counter is full, the eventfd is readable already.
        unsafe { libc::write(self.fd.as_raw_fd(), (&raw const increment).cast(), 8) };
    }

    /// Make the eventfd unreadable.
    pub fn clear(&self) {
        let mut count = 0_u64;
        // SAFETY: eight bytes that outlive the call. EAGAIN means that it was not readable.
        unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut count).cast(), 8) };
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

/// A timerfd, which is readable once its time has come.
pub struct Timer {
    fd: OwnedFd,
}

impl Timer {
    /// A new timerfd that is not set.
    pub fn new() -> io::Result<Timer> {
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: no pointers. The result is checked before it is owned.
        let fd = checked(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })?;
        Ok(Timer {
            // SAFETY: a new descriptor without another owner.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
        })
    }

    /// Become readable at `at_ns` on the monotonic clock. 0 disarms the timer.
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
        // SAFETY: `at` outlives the call. A null pointer means that the old value is not wanted.
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
