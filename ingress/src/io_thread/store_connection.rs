//! The I/O thread's own connection to the feature store (decision 0100).
//!
//! Python makes the connection and its handshake, as features/online/reader.py does for its own. Only MGET
//! is sent here, and the n-th reply answers the n-th command. If a command is not answered in time, no
//! further one is sent, and the connection is given up once no call waits for it: the circuit breaker of
//! Python's reader decides what a slow store means.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use socket2::{Socket, TcpKeepalive};

use crate::accel::mget_replies::{MgetReplies, ReplyError};
use crate::accel::store_keys::StoreKeys;
use crate::io_thread::usual_groups::ReadingGroup;

/// So many reads may be under way. Calls that come meanwhile share the next read, so that reads grow with
/// the load.
const READS_MAX: usize = 2;
/// A read with less time than this may be late on a healthy store (counted_timeout_ms_min of
/// features/online/reader.py).
const COUNTED_NS_MIN: i64 = 10_000_000;
/// An idle connection is tested after so long, because a firewall may have dropped it.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Unsent bytes above which the store takes no more reads.
const UNSENT_BYTES_MAX: usize = 1 << 20;

/// A read that is under way.
struct PendingRead {
    keys: usize,
    /// Unix time at which it was sent.
    unix_ns: i64,
    /// Monotonic time at which it was sent.
    sent_ns: i64,
    /// Monotonic time at which its calls wait no longer.
    due_ns: i64,
    /// None is left once the read was late.
    groups: Vec<ReadingGroup>,
}

/// Whether reads can be sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum StoreState {
    /// There is no store, or it is late, or it does not take bytes.
    Away,
    /// Enough reads are under way. The next one can be sent at this monotonic time, or sooner.
    Busy(i64),
    /// A read can be sent.
    Free,
}

/// The connection is of no use any more, for this reason.
pub struct Lost(pub String);

/// A read that was answered.
pub struct AnsweredRead<'a> {
    /// The groups that wait for it.
    pub groups: Vec<ReadingGroup>,
    /// The values, group by group and view by view.
    pub values: Vec<Option<&'a [u8]>>,
    /// Unix time at which it was sent.
    pub unix_ns: i64,
}

/// A connection to the store, and the reads that are under way on it.
pub struct StoreConnection {
    socket: Socket,
    unsent: Vec<u8>,
    replies: MgetReplies,
    reads: VecDeque<PendingRead>,
    /// A read was not answered in time.
    late: bool,
    /// Whether the poller watches for the time at which the socket can be written.
    pub watches_writing: bool,
}

impl StoreConnection {
    /// A connection that is ready for commands.
    pub fn new(socket: OwnedFd) -> std::io::Result<StoreConnection> {
        let socket = Socket::from(socket);
        socket.set_nonblocking(true)?;
        // A Unix socket has no such option, and needs none.
        let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
        Ok(StoreConnection {
            socket,
            unsent: Vec::new(),
            replies: MgetReplies::default(),
            reads: VecDeque::new(),
            late: false,
            watches_writing: false,
        })
    }

    /// Whether a read can be sent now.
    pub fn state(&self) -> StoreState {
        if self.late || self.unsent.len() > UNSENT_BYTES_MAX {
            StoreState::Away
        } else if self.reads.len() >= READS_MAX {
            StoreState::Busy(self.reads.iter().map(|read| read.due_ns).min().unwrap_or(0))
        } else {
            StoreState::Free
        }
    }

    /// How many calls wait for reads that are under way.
    pub fn calls(&self) -> usize {
        self.reads.iter().flat_map(|read| &read.groups).map(|group| group.calls.len()).sum()
    }

    /// Whether bytes wait until the socket can be written.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Send a read for these groups. Their calls wait from now to the second of two monotonic times.
    pub fn send(
        &mut self,
        keys: &StoreKeys,
        groups: Vec<ReadingGroup>,
        unix_ns: i64,
        (sent_ns, due_ns): (i64, i64),
    ) -> Result<(), Lost> {
        self.reads.push_back(PendingRead {
            keys: keys.len(),
            unix_ns,
            sent_ns,
            due_ns,
            groups,
        });
        self.unsent.extend_from_slice(&keys.mget());
        self.send_unsent()
    }

    /// Send what waits, as far as the socket takes it.
    pub fn send_unsent(&mut self) -> Result<(), Lost> {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(0) => return Err(closed()),
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(&error)),
            }
        }
        Ok(())
    }

    /// Take bytes that came, up to the size of `buffer`. True: there may be more.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<bool, Lost> {
        match self.socket.read(buffer) {
            Ok(0) => Err(closed()),
            Ok(count) => {
                self.replies.push(&buffer[..count]);
                Ok(count == buffer.len())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(broken(&error)),
        }
    }

    /// The next read that was answered. Call `finish_read` after it.
    pub fn answered_read(&mut self) -> Result<Option<AnsweredRead<'_>>, Lost> {
        let Some(oldest) = self.reads.front_mut() else {
            let unasked = self.replies.has_bytes();
            return if unasked { Err(unexpected()) } else { Ok(None) };
        };
        match self.replies.read(oldest.keys) {
            Ok(false) => Ok(None),
            Ok(true) => Ok(Some(AnsweredRead {
                groups: std::mem::take(&mut oldest.groups),
                values: self.replies.values(),
                unix_ns: oldest.unix_ns,
            })),
            Err(ReplyError::Refused) => Err(Lost("the store refused to read".to_owned())),
            Err(ReplyError::Unexpected) => Err(unexpected()),
        }
    }

    /// Forget the read that was answered.
    pub fn finish_read(&mut self) {
        self.reads.pop_front();
        self.replies.finish();
    }

    /// When the first read is due for which calls wait.
    pub fn next_due_ns(&self) -> Option<i64> {
        self.reads.iter().filter(|read| !read.groups.is_empty()).map(|read| read.due_ns).min()
    }

    /// Take the groups whose reads are overdue at `now_ns`.
    pub fn take_overdue(&mut self, now_ns: i64) -> Vec<ReadingGroup> {
        let mut overdue = Vec::new();
        for read in &mut self.reads {
            if read.due_ns <= now_ns && !read.groups.is_empty() {
                self.late |= read.due_ns - read.sent_ns >= COUNTED_NS_MIN;
                overdue.append(&mut read.groups);
            }
        }
        overdue
    }

    /// Whether the store was late and no call waits for it.
    pub fn is_given_up(&self) -> bool {
        self.late && self.calls() == 0
    }

    /// Add the time for which the process was suspended to the time of each read.
    pub fn add_suspended_time(&mut self, suspended_ns: i64) {
        for read in &mut self.reads {
            read.sent_ns += suspended_ns;
            read.due_ns += suspended_ns;
        }
    }

    /// End the connection, and return the groups that wait for it.
    pub fn into_groups(self) -> Vec<ReadingGroup> {
        self.reads.into_iter().flat_map(|read| read.groups).collect()
    }
}

impl AsRawFd for StoreConnection {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn closed() -> Lost {
    Lost("the store closed the connection".to_owned())
}

fn unexpected() -> Lost {
    Lost("the store answered with something else than the values".to_owned())
}

fn broken(error: &std::io::Error) -> Lost {
    Lost(format!("the connection broke: {}", error.kind()))
}
