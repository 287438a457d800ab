//! The connections of one thread: opened, read, written, lost, replaced.

use super::Drive;
use crate::connection::Connection;
use crate::sockets::Socket;
use crate::tally::{self, Times};
use mio::Token;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const RECONNECT_NS: u64 = 100_000_000;
const FULL: &str = "every connection had all its calls open until this one's time was over";

pub struct Link {
    socket: Socket,
    pub connection: Connection,
    /// The socket took less than it was given: wait until it is writable.
    pub stuck: bool,
}

impl Link {
    fn done(&self) -> bool {
        self.connection.leaving && self.connection.idle()
    }
}

impl Drive<'_> {
    pub(super) fn receive(&mut self, place: usize) {
        let Some(link) = &mut self.links[place] else {
            return;
        };
        let trouble = loop {
            match link.socket.receive(&mut self.buffer) {
                Ok((0, _)) => break "the server closed the connection".to_owned(),
                Ok((count, drained)) => {
                    let now_ns = self.born.elapsed().as_nanos() as u64;
                    let bytes = &self.buffer[..count];
                    if let Err(words) = link.connection.hear(bytes, now_ns, &mut self.tally) {
                        break words;
                    }
                    self.supply.come_back(&mut link.connection.again);
                    if drained {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error.to_string(),
            }
        };
        self.lose(place, trouble);
    }

    pub(super) fn flush(&mut self, place: usize) {
        let Some(link) = &mut self.links[place] else {
            return;
        };
        let out = &mut link.connection.out.bytes;
        while !link.stuck && (!out.is_empty() || link.socket.holds_bytes()) {
            match link.socket.send(out) {
                Ok(count) if count == out.len() => out.clear(),
                Ok(count) => {
                    out.drain(..count);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected => link.stuck = true,
                    _ => {
                        self.lose(place, error.to_string());
                        return;
                    }
                },
            }
        }
    }

    /// A connection ended by itself.
    fn lose(&mut self, place: usize, trouble: String) {
        let now_ns = self.now_ns();
        if let Some(mut link) = self.links[place].take() {
            self.supply.come_back(&mut link.connection.again);
            if !link.done() {
                self.tally.connections_lost += u64::from(self.begun);
                self.reconnect_ns = now_ns + RECONNECT_NS;
                link.connection.lost(&trouble, now_ns, &mut self.tally);
            }
            self.trouble = trouble;
        }
    }

    /// Now and then: give up what is overdue, close what has left, connect anew.
    pub(super) fn sweep(&mut self, now_ns: u64) {
        for link in self.links.iter_mut() {
            let Some(open) = link else { continue };
            open.connection.give_up(now_ns, &mut self.tally);
            self.supply.come_back(&mut open.connection.again);
            let allowed = open.connection.streams_allowed as u64;
            self.progress
                .streams_allowed
                .fetch_min(allowed, Ordering::Relaxed);
            if open.done() {
                *link = None;
            }
        }
        let before_ns = now_ns.saturating_sub(self.share.manner.timeout_ns);
        while let Some(due_ns) = self.supply.give_up(before_ns) {
            let times = Times {
                due_ns,
                sent_ns: now_ns,
            };
            self.tally
                .fail(times, now_ns, tally::DEADLINE_EXCEEDED, FULL);
        }
        if self.supply.goes_on(now_ns) {
            self.replace(now_ns);
        }
    }

    /// Open connections until there are as many as asked for.
    pub(super) fn replace(&mut self, now_ns: u64) {
        let staying = self
            .links
            .iter()
            .flatten()
            .filter(|link| !link.connection.leaving)
            .count();
        for _ in staying..self.share.connections {
            if now_ns < self.reconnect_ns {
                return;
            }
            let free = self.links.iter().position(Option::is_none);
            let place = free.unwrap_or_else(|| {
                self.links.push(None);
                self.links.len() - 1
            });
            match self.dial(place) {
                Ok(link) => self.links[place] = Some(link),
                Err(error) => {
                    self.trouble = error.to_string();
                    self.reconnect_ns = now_ns + RECONNECT_NS;
                }
            }
        }
    }

    fn dial(&self, place: usize) -> io::Result<Link> {
        let mut socket = self.share.dialer.dial()?;
        socket.register(self.poll.registry(), Token(place))?;
        let connection = Connection::new(Arc::clone(&self.share.manner));
        Ok(Link {
            socket,
            connection,
            stuck: false,
        })
    }
}
