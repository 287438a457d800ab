//! Listeners: how connections are accepted, and how a port is closed without losing a connection.

use std::io::ErrorKind;
use std::os::fd::AsRawFd;

use crate::http2::bounds::client::Client;
use crate::http2::socket::{Listener, Socket};
use crate::sys::os::Poller;

/// Token of the first listener. The following listeners count down from it.
const FIRST_TOKEN: u64 = u64::MAX - 1;
const LISTENERS_MAX: u64 = 8;

/// What `Listeners::accept` found.
pub enum Accepted {
    /// A new connection, and whose it is.
    Connection(Socket, Client),
    /// The client closed its connection while it waited.
    Aborted,
    /// No connection waits.
    Nothing,
}

/// The sockets at which the I/O thread listens.
///
/// A TCP listener may be shared with another process: the supervisor lends one socket a slot to each
/// worker in turn. Closing a listener here leaves the socket open for the others.
#[derive(Default)]
pub struct Listeners {
    listeners: Vec<Option<Listener>>,
}

impl Listeners {
    /// Watch a listener. One that cannot be watched is closed.
    pub fn add(&mut self, listener: Listener, poller: &Poller) {
        let token = FIRST_TOKEN - self.listeners.len() as u64;
        if poller.add(listener.as_raw_fd(), token, true, false).is_ok() {
            self.listeners.push(Some(listener));
        }
    }

    /// The index of the listener that has this token, if the token is one of a listener.
    pub fn index(token: u64) -> Option<usize> {
        FIRST_TOKEN.checked_sub(token).filter(|index| *index < LISTENERS_MAX).map(|at| at as usize)
    }

    /// How many listeners were added, closed ones included.
    pub fn len(&self) -> usize {
        self.listeners.len()
    }

    /// Whether no listener was ever added.
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// Accept the next connection of one listener.
    pub fn accept(&mut self, index: usize, poller: &Poller) -> Accepted {
        let Some(Some(listener)) = self.listeners.get(index) else {
            return Accepted::Nothing;
        };
        match listener.accept() {
            Ok((socket, client)) => Accepted::Connection(socket, client),
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => Accepted::Aborted,
            // Another process that shares the socket has shut it down.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                self.close(index, poller);
                Accepted::Nothing
            }
            Err(_) => Accepted::Nothing,
        }
    }

    /// Close one listener.
    pub fn close(&mut self, index: usize, poller: &Poller) {
        if let Some(listener) = self.listeners[index].take() {
            // Closing does not end epoll's watch: another process may share the socket.
            poller.remove(listener.as_raw_fd());
        }
    }
}
