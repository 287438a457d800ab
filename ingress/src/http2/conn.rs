//! One connection: a socket, an HTTP/2 session, and how long it may stay.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;

use crate::http2::socket::Socket;
use crate::http2::stream::Phase;
use crate::http2::stream_events::Seat;
use crate::http2::streams::Streams;
use crate::io_thread::server_state::{Due, House, Place};
use crate::sys::nghttp2::{code, Promises, Session};
use crate::sys::os::Poller;

/// Bytes put together for one write.
const WRITE_BYTES: usize = 256 * 1024;
/// Bytes that a peer has not taken; past that nothing of it is read.
const UNSENT_BYTES_MAX: usize = 512 * 1024;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: i32 = 4 * 1024 * 1024;

const SECOND: i64 = 1_000_000_000;
/// From connecting to the first SETTINGS.
const GREETING_NS_MAX: i64 = 2 * SECOND;
/// Nothing heard for so long: ask whether anybody is there.
const QUIET_NS_MAX: i64 = 20 * SECOND;
/// No answer within this: nobody is.
const PONG_NS_MAX: i64 = 5 * SECOND;
/// Bytes that nobody takes are kept no longer.
const STUCK_NS_MAX: i64 = 20 * SECOND;
/// From the notice of a GOAWAY to the GOAWAY, if the peer does not answer our ping before.
const NOTICE_NS: i64 = 5 * SECOND;
/// From our last byte to closing, if the peer does not close before: what it sends meanwhile is
/// read and thrown away, because bytes that arrive at a closed socket make the kernel send a reset,
/// which overtakes replies that are still on their way.
const PARTING_NS: i64 = 5 * SECOND;
/// The same for one who floods us.
const FLOODED_PARTING_NS: i64 = SECOND;

/// How far a connection's leaving is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Going {
    Not,
    Noticed(i64),
    Said(i64),
    Parting(i64),
}

/// See above.
pub struct Conn {
    socket: Socket,
    session: Session,
    /// Its streams.
    pub streams: Streams,
    out: Vec<u8>,
    sent: usize,
    reads: bool,
    writes: bool,
    going: Going,
    opened_ns: i64,
    age_ns_max: i64,
    heard_ns: i64,
    asked_ns: i64,
    moved_ns: i64,
    /// It is on the list of those to be flushed.
    pub dirty: bool,
    /// Nothing more can come of it.
    pub dead: bool,
}

impl Conn {
    /// A connection that was just accepted, to leave at `age_ns_max`.
    pub fn new(token: u64, socket: Socket, house: &House, age_ns_max: i64) -> Conn {
        let session = Session::new(Promises {
            streams: house.limits.streams_max,
            stream_window: STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
            header_list: house.limits.metadata_bytes_max as u32,
        });
        Conn {
            socket,
            session,
            streams: Streams::new(token),
            out: Vec::new(),
            sent: 0,
            reads: true,
            writes: false,
            going: Going::Not,
            opened_ns: house.now_ns,
            age_ns_max,
            heard_ns: house.now_ns,
            asked_ns: 0,
            moved_ns: house.now_ns,
            dirty: false,
            dead: false,
        }
    }

    /// Its socket's number.
    pub fn fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    /// Take in what has come, one buffer at most: others wait for their turn.
    pub fn read(&mut self, house: &mut House, buffer: &mut [u8]) {
        loop {
            let count = match self.socket.read(buffer) {
                Ok(count) if count > 0 => count,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
                {
                    return;
                }
                _ => {
                    self.dead = true;
                    return;
                }
            };
            self.take_in(house, &buffer[..count]);
            // Decrypted bytes may be left where the poller cannot see them.
            if self.dead || !matches!(self.socket, Socket::Tls(_)) {
                return;
            }
        }
    }

    fn take_in(&mut self, house: &mut House, bytes: &[u8]) {
        self.heard_ns = house.now_ns;
        if matches!(self.going, Going::Parting(_)) || self.streams.flooded {
            return;
        }
        let mut seat = Seat {
            streams: &mut self.streams,
            house,
        };
        if self.session.receive(bytes, &mut seat).is_err() {
            self.flush(house);
            self.dead = true;
            return;
        }
        for id in std::mem::take(&mut self.streams.begun) {
            let waits = self.streams.open.get(&id).filter(|stream| stream.phase == Phase::Open);
            if let Some(stream) = waits {
                let token = self.streams.token;
                let at_ns = stream.arrived_ns + house.limits.body_ns_max;
                house.look_at(
                    at_ns,
                    Place {
                        token,
                        stream: id,
                    },
                    Due::Message,
                );
            }
        }
    }

    /// Look at the clock as if `ns` had not passed.
    pub fn excuse(&mut self, ns: i64) {
        for at_ns in [&mut self.opened_ns, &mut self.heard_ns, &mut self.moved_ns] {
            *at_ns += ns;
        }
        if self.asked_ns > 0 {
            self.asked_ns += ns;
        }
    }

    /// Do what callbacks asked for, and send.
    pub fn flush(&mut self, house: &mut House) {
        loop {
            self.streams.act(&mut self.session);
            let mut seat = Seat {
                streams: &mut self.streams,
                house,
            };
            if self.session.send(&mut seat, &mut self.out, WRITE_BYTES).is_err() {
                self.dead = true;
            }
            let again = self.reset_lingering()
                || self.out.len() >= WRITE_BYTES
                || !self.streams.todo.is_empty();
            if !self.write(house.now_ns) || self.dead || !again {
                break;
            }
        }
        let over = self.streams.flooded || !self.session.alive();
        if over && self.out.is_empty() && !matches!(self.going, Going::Parting(_)) {
            self.going = Going::Parting(house.now_ns);
            self.socket.shut_write();
            self.close(house);
        }
    }

    /// Reset what we have ended and the peer has not: it would count among its streams for ever.
    fn reset_lingering(&mut self) -> bool {
        let mut reset = false;
        for id in std::mem::take(&mut self.streams.lingering) {
            match self.streams.open.get(&id) {
                Some(stream) if !stream.remote_closed && self.session.said_all(id) => {
                    self.session.reset(id, code::NO_ERROR);
                    reset = true;
                }
                Some(stream) if !stream.remote_closed => self.streams.lingering.push(id),
                _ => {}
            }
        }
        reset
    }

    /// Write what there is; false: the peer takes no more now.
    fn write(&mut self, now_ns: i64) -> bool {
        while self.sent < self.out.len() {
            match self.socket.write(&self.out[self.sent..]) {
                Ok(count) => {
                    self.sent += count;
                    self.moved_ns = now_ns;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => {
                    self.dead = true;
                    return false;
                }
            }
        }
        self.out.clear();
        self.sent = 0;
        self.moved_ns = now_ns;
        match self.socket.flush() {
            Ok(()) => true,
            Err(error) => {
                self.dead |= error.kind() != ErrorKind::WouldBlock;
                false
            }
        }
    }

    /// Have the poller watch for what is needed now.
    pub fn watch(&mut self, poller: &Poller) {
        let reads = self.out.len() - self.sent < UNSENT_BYTES_MAX;
        let writes = self.sent < self.out.len() || self.socket.unsent();
        if (reads, writes) != (self.reads, self.writes) {
            (self.reads, self.writes) = (reads, writes);
            if poller.change(self.fd(), self.streams.token, reads, writes).is_err() {
                self.dead = true;
            }
        }
    }

    fn parting_ns(&self) -> i64 {
        if self.streams.flooded {
            FLOODED_PARTING_NS
        } else {
            PARTING_NS
        }
    }

    /// Begin to leave: a notice first, so that calls on their way are served.
    pub fn leave(&mut self, now_ns: i64) {
        if self.going == Going::Not {
            self.going = Going::Noticed(now_ns);
            self.streams.ponged = false;
            self.session.notice();
            self.session.ping();
        }
    }

    /// Look at the clock. True: there is something to flush.
    pub fn tick(&mut self, house: &mut House) -> bool {
        let now_ns = house.now_ns;
        let quiet_ns = now_ns - self.heard_ns;
        let unsent = self.sent < self.out.len();
        let mute = !self.streams.greeted && now_ns - self.opened_ns > GREETING_NS_MAX;
        let stuck = unsent && now_ns - self.moved_ns > STUCK_NS_MAX;
        let lost = self.asked_ns > self.heard_ns && now_ns - self.asked_ns > PONG_NS_MAX;
        let grace_ns = house.limits.grace_ns;
        match self.going {
            _ if mute || stuck || lost => self.dead = true,
            Going::Not if now_ns - self.opened_ns > self.age_ns_max => {
                self.leave(now_ns);
                return true;
            }
            Going::Not if quiet_ns > QUIET_NS_MAX && self.asked_ns <= self.heard_ns => {
                self.asked_ns = now_ns;
                self.session.ping();
                return true;
            }
            Going::Noticed(at_ns) if self.streams.ponged || now_ns - at_ns > NOTICE_NS => {
                self.say_goaway(house);
                return true;
            }
            Going::Said(at_ns) if now_ns - at_ns > grace_ns => self.dead = true,
            Going::Parting(at_ns) if now_ns - at_ns > self.parting_ns() => self.dead = true,
            _ => {}
        }
        false
    }

    /// The peer answered our ping: no call that it sent before the notice is still on its way.
    pub fn heard_notice(&mut self, house: &mut House) {
        if matches!(self.going, Going::Noticed(_)) && self.streams.ponged {
            self.say_goaway(house);
        }
    }

    /// GOAWAY; then streams of messages, which would never end, are told to open again elsewhere.
    fn say_goaway(&mut self, house: &mut House) {
        self.going = Going::Said(house.now_ns);
        self.session.goaway(code::NO_ERROR, b"");
        self.streams.leaving = true;
        let ids: Vec<i32> = self.streams.open.keys().copied().collect();
        for id in ids {
            self.streams.end_if_idle(id);
        }
    }

    /// Give back all that its calls hold.
    pub fn close(&mut self, house: &mut House) {
        let ids: Vec<i32> = self.streams.open.keys().copied().collect();
        let mut seat = Seat {
            streams: &mut self.streams,
            house,
        };
        for id in ids {
            crate::sys::nghttp2::Events::closed(&mut seat, id, code::CANCEL);
        }
    }
}
