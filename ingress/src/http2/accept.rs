//! Where connections come from, and how a port is left without losing one.

use std::io::ErrorKind;
use std::os::fd::AsRawFd;

use crate::http2::conn::Conn;
use crate::http2::socket::{Listener, Socket, BACKLOG};
use crate::io_thread::io::{Io, LISTENER_TOKEN};

/// Connections accepted in one turn.
const ACCEPTED_MAX: usize = 64;
/// And when a port is left: as many as may wait there.
const WAITING_MAX: i32 = BACKLOG;

impl Io {
    /// Take connections from here.
    pub(crate) fn listen(&mut self, listener: Listener) {
        let token = LISTENER_TOKEN - self.listeners.len() as u64;
        if self.poller.add(listener.as_raw_fd(), token, true, false).is_ok() {
            self.listeners.push(Some(listener));
        }
    }

    /// Take what waits at a listener, up to a turn's share.
    pub(crate) fn accept(&mut self, at: usize) {
        for _ in 0..ACCEPTED_MAX {
            if !self.accept_one(at) {
                return;
            }
        }
    }

    /// Leave every port: who waits there is taken in first.
    ///
    /// A successor that was lent the same socket goes on accepting from its queue, and nobody is
    /// lost. Without one, the kernel resets who comes between the last look and the close.
    pub(crate) fn close_listeners(&mut self) {
        for at in 0..self.listeners.len() {
            for _ in 0..WAITING_MAX {
                if !self.accept_one(at) {
                    break;
                }
            }
            if let Some(listener) = self.listeners[at].take() {
                // Closing does not end the watch: others may hold the same socket.
                self.poller.remove(listener.as_raw_fd());
            }
        }
    }

    /// Take the next connection; false: none waits.
    fn accept_one(&mut self, at: usize) -> bool {
        let Some(Some(listener)) = self.listeners.get(at) else {
            return false;
        };
        match listener.accept() {
            Ok(socket) => self.admit(socket),
            // This connection is gone already.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            // The socket was shut by somebody who holds it too.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                self.poller.remove(listener.as_raw_fd());
                self.listeners[at] = None;
                return false;
            }
            Err(_) => return false,
        }
        true
    }

    fn admit(&mut self, socket: Socket) {
        if self.open >= self.server.limits.connections_max {
            return; // closed at once
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.conns.push(None);
            self.conns.len() as u32 - 1
        });
        self.serial = self.serial.wrapping_add(1).max(1) & 0x7fff_ffff;
        let token = u64::from(self.serial) << 32 | u64::from(index);
        if self.poller.add(socket.as_raw_fd(), token, true, false).is_err() {
            self.free.push(index);
            return;
        }
        let age_ns = with_jitter(self.server.limits.age_ns_max, token);
        let mut conn = Box::new(Conn::new(token, socket, &self.server, age_ns));
        if self.draining {
            conn.leave(self.server.now_ns);
        }
        self.conns[index as usize] = Some(conn);
        self.open += 1;
        self.count();
        self.mark_dirty(token);
    }
}

/// `age_ns` give or take a tenth, so that clients do not all come back at once.
fn with_jitter(age_ns: i64, token: u64) -> i64 {
    let drawn = (token >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    age_ns + age_ns / 10 * (drawn as i64 - (1 << 23)) / (1 << 23)
}
