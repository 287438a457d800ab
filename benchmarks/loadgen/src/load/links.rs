//! The connections of a run and their sockets: opened, read, written, lost and replaced.

use super::Load;
use crate::connection::Connection;
use crate::sockets::Socket;
use mio::event::Event;
use mio::{Interest, Token};
use std::io;
use std::rc::Rc;

/// A lost connection is replaced after this time, not at once.
const RECONNECT_NS: u64 = 100_000_000;

pub struct Link {
    socket: Box<dyn Socket>,
    pub connection: Connection,
    /// The socket's buffer is full, until an event says that the socket is writable.
    is_full: bool,
}

impl Link {
    fn is_done(&self) -> bool {
        self.connection.is_closing && self.connection.is_idle()
    }
}

impl Load<'_> {
    pub(super) fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.links.iter().flatten().map(|link| &link.connection)
    }

    /// Returns the place of the next connection that can take a call.
    #[inline]
    pub(super) fn next_free(&mut self) -> Option<usize> {
        let has_slot = |link: &Link| link.connection.free_slots() > 0;
        for _ in 0..self.links.len() {
            self.last_used = (self.last_used + 1) % self.links.len();
            if self.links[self.last_used].as_ref().is_some_and(has_slot) {
                return Some(self.last_used);
            }
        }
        None
    }

    /// Opens connections until there are as many as wanted. Those that are closing do not count.
    pub(super) fn open_missing(&mut self, now_ns: u64) {
        let staying = self.connections().filter(|connection| !connection.is_closing).count();
        for _ in staying..self.options.connections {
            if now_ns < self.reconnect_ns {
                return;
            }
            let place = self.links.iter().position(Option::is_none).unwrap_or(self.links.len());
            match self.open(place) {
                Ok(link) if place < self.links.len() => self.links[place] = Some(link),
                Ok(link) => self.links.push(Some(link)),
                Err(error) => {
                    self.last_error = error.to_string();
                    self.reconnect_ns = now_ns + RECONNECT_NS;
                }
            }
        }
    }

    fn open(&self, place: usize) -> io::Result<Link> {
        let mut socket = self.target.connect()?;
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut *socket, Token(place), both)?;
        let connection = Connection::new(Rc::clone(&self.settings));
        Ok(Link { socket, connection, is_full: false })
    }

    /// Reads what arrived on the socket of an event.
    pub(super) fn receive(&mut self, event: &Event) {
        let place = event.token().0;
        let Some(Some(link)) = self.links.get_mut(place) else { return };
        link.is_full &= !event.is_writable();
        if !(event.is_readable() || event.is_read_closed() || event.is_error()) {
            return;
        }
        // Read until the socket is empty, or until the connection is lost.
        let error = loop {
            match link.socket.read(&mut self.buffer) {
                Ok(0) => break "the server closed the connection".to_owned(),
                Ok(count) => {
                    self.results.now_ns = self.started.elapsed().as_nanos() as u64;
                    let bytes = &self.buffer[..count];
                    if let Err(error) = link.connection.receive(bytes, &mut self.results) {
                        break error;
                    }
                    self.schedule.retry(&mut link.connection.unprocessed);
                    if count < self.buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error.to_string(),
            }
        };
        self.lose(place, error);
    }

    /// Writes to the socket of a place what its connection has to send.
    pub(super) fn flush(&mut self, place: usize) {
        let Some(Some(link)) = self.links.get_mut(place) else { return };
        let bytes = &mut link.connection.writer.bytes;
        while !link.is_full && !bytes.is_empty() {
            match link.socket.write(bytes) {
                Ok(count) if count == bytes.len() => bytes.clear(),
                Ok(count) => drop(bytes.drain(..count)),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected => link.is_full = true,
                    _ => return self.lose(place, error.to_string()),
                },
            }
        }
    }

    pub(super) fn flush_all(&mut self) {
        for place in 0..self.links.len() {
            self.flush(place);
        }
    }

    /// Removes a connection whose socket failed, and fails its open calls. A connection that the
    /// server announced to close, and that has no open calls, is not counted as lost.
    fn lose(&mut self, place: usize, error: String) {
        let Some(mut link) = self.links[place].take() else { return };
        self.schedule.retry(&mut link.connection.unprocessed);
        if !link.is_done() {
            self.results.now_ns = self.now_ns();
            self.results.connections_lost += 1;
            self.reconnect_ns = self.results.now_ns + RECONNECT_NS;
            link.connection.fail_all(&error, &mut self.results);
        }
        self.last_error = error;
    }

    /// Cancels overdue calls, and closes connections that are done.
    pub(super) fn cancel_overdue(&mut self, now_ns: u64) {
        self.results.now_ns = now_ns;
        for place in &mut self.links {
            let Some(link) = place else { continue };
            link.connection.cancel_overdue(&mut self.results);
            self.schedule.retry(&mut link.connection.unprocessed);
            self.streams_allowed = self.streams_allowed.min(link.connection.streams_allowed);
            if link.is_done() {
                *place = None;
            }
        }
    }
}
