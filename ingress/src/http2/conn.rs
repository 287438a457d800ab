//! One connection: a socket, an HTTP/2 session, and how long it may stay.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;

use crate::http2::socket::Socket;
use crate::http2::stream::Phase;
use crate::http2::stream_events::StreamEvents;
use crate::http2::streams::Streams;
use crate::io_thread::server_state::{ServerState, StreamRef, TimerKind};
use crate::sys::nghttp2::{code, Session, SessionSettings};
use crate::sys::os::Poller;

/// Bytes put together for one write.
const WRITE_BYTES: usize = 256 * 1024;
/// Bytes that a peer has not taken; past that nothing of it is read.
const UNSENT_BYTES_MAX: usize = 512 * 1024;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: i32 = 4 * 1024 * 1024;

const SECOND: i64 = 1_000_000_000;
/// From connecting to the first SETTINGS.
const SETTINGS_NS_MAX: i64 = 2 * SECOND;
/// Nothing heard for so long: ask whether anybody is there.
const KEEPALIVE_NS: i64 = 20 * SECOND;
/// No answer within this: nobody is.
const KEEPALIVE_TIMEOUT_NS: i64 = 5 * SECOND;
/// Bytes that nobody takes are kept no longer.
const SEND_STALL_NS_MAX: i64 = 20 * SECOND;
/// From the notice of a GOAWAY to the GOAWAY, if the peer does not answer our ping before.
const SHUTDOWN_NOTICE_NS: i64 = 5 * SECOND;
/// From our last byte to closing, if the peer does not close before: what it sends meanwhile is
/// read and thrown away, because bytes that arrive at a closed socket make the kernel send a reset,
/// which overtakes replies that are still on their way.
const CLOSE_WAIT_NS: i64 = 5 * SECOND;
/// The same for one who floods us.
const FLOODED_CLOSE_WAIT_NS: i64 = SECOND;

/// How far a connection's leaving is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ShutdownState {
    Not,
    NoticeSent(i64),
    GoAwaySent(i64),
    WriteClosed(i64),
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
    shutdown_state: ShutdownState,
    opened_ns: i64,
    age_ns_max: i64,
    received_ns: i64,
    pinged_ns: i64,
    sent_ns: i64,
    /// It is on the list of those to be flushed.
    pub dirty: bool,
    /// Nothing more can come of it.
    pub dead: bool,
}

impl Conn {
    /// A connection that was just accepted, to leave at `age_ns_max`.
    pub fn new(token: u64, socket: Socket, server: &ServerState, age_ns_max: i64) -> Conn {
        let session = Session::new(SessionSettings {
            streams: server.limits.streams_max,
            stream_window: STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
            header_list: server.limits.metadata_bytes_max as u32,
        });
        Conn {
            socket,
            session,
            streams: Streams::new(token),
            out: Vec::new(),
            sent: 0,
            reads: true,
            writes: false,
            shutdown_state: ShutdownState::Not,
            opened_ns: server.now_ns,
            age_ns_max,
            received_ns: server.now_ns,
            pinged_ns: 0,
            sent_ns: server.now_ns,
            dirty: false,
            dead: false,
        }
    }

    /// Its socket's number.
    pub fn fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    /// Take in what has come, one buffer at most: others wait for their turn.
    pub fn read(&mut self, server: &mut ServerState, buffer: &mut [u8]) {
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
            self.take_in(server, &buffer[..count]);
            // Decrypted bytes may be left where the poller cannot see them.
            if self.dead || !matches!(self.socket, Socket::Tls(_)) {
                return;
            }
        }
    }

    fn take_in(&mut self, server: &mut ServerState, bytes: &[u8]) {
        self.received_ns = server.now_ns;
        if matches!(self.shutdown_state, ShutdownState::WriteClosed(_)) || self.streams.flooded {
            return;
        }
        let mut events = StreamEvents {
            streams: &mut self.streams,
            server,
        };
        if self.session.receive(bytes, &mut events).is_err() {
            self.flush(server);
            self.dead = true;
            return;
        }
        for id in std::mem::take(&mut self.streams.new_streams) {
            let waits = self.streams.open.get(&id).filter(|stream| stream.phase == Phase::Open);
            if let Some(stream) = waits {
                let token = self.streams.token;
                let at_ns = stream.arrived_ns + server.limits.body_ns_max;
                server.set_timer(
                    at_ns,
                    StreamRef {
                        token,
                        stream: id,
                    },
                    TimerKind::Message,
                );
            }
        }
    }

    /// Look at the clock as if `ns` had not passed.
    pub fn add_suspended_time(&mut self, ns: i64) {
        for at_ns in [&mut self.opened_ns, &mut self.received_ns, &mut self.sent_ns] {
            *at_ns += ns;
        }
        if self.pinged_ns > 0 {
            self.pinged_ns += ns;
        }
    }

    /// Do what callbacks asked for, and send.
    pub fn flush(&mut self, server: &mut ServerState) {
        loop {
            self.streams.act(&mut self.session);
            let mut events = StreamEvents {
                streams: &mut self.streams,
                server,
            };
            if self.session.send(&mut events, &mut self.out, WRITE_BYTES).is_err() {
                self.dead = true;
            }
            let again = self.reset_lingering()
                || self.out.len() >= WRITE_BYTES
                || !self.streams.actions.is_empty();
            if !self.write(server.now_ns) || self.dead || !again {
                break;
            }
        }
        let over = self.streams.flooded || !self.session.wants_io();
        if over
            && self.out.is_empty()
            && !matches!(self.shutdown_state, ShutdownState::WriteClosed(_))
        {
            self.shutdown_state = ShutdownState::WriteClosed(server.now_ns);
            self.socket.shutdown_write();
            self.close(server);
        }
    }

    /// Reset what we have ended and the peer has not: it would count among its streams for ever.
    fn reset_lingering(&mut self) -> bool {
        let mut reset = false;
        for id in std::mem::take(&mut self.streams.half_closed_local) {
            match self.streams.open.get(&id) {
                Some(stream) if !stream.remote_closed && self.session.local_closed(id) => {
                    self.session.reset(id, code::NO_ERROR);
                    reset = true;
                }
                Some(stream) if !stream.remote_closed => self.streams.half_closed_local.push(id),
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
                    self.sent_ns = now_ns;
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
        self.sent_ns = now_ns;
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
            if poller.modify(self.fd(), self.streams.token, reads, writes).is_err() {
                self.dead = true;
            }
        }
    }

    fn close_wait_ns(&self) -> i64 {
        if self.streams.flooded {
            FLOODED_CLOSE_WAIT_NS
        } else {
            CLOSE_WAIT_NS
        }
    }

    /// Begin to leave: a notice first, so that calls on their way are served.
    pub fn leave(&mut self, now_ns: i64) {
        if self.shutdown_state == ShutdownState::Not {
            self.shutdown_state = ShutdownState::NoticeSent(now_ns);
            self.streams.ping_acked = false;
            self.session.notice();
            self.session.ping();
        }
    }

    /// Look at the clock. True: there is something to flush.
    pub fn tick(&mut self, server: &mut ServerState) -> bool {
        let now_ns = server.now_ns;
        let quiet_ns = now_ns - self.received_ns;
        let unsent = self.sent < self.out.len();
        let mute = !self.streams.settings_received && now_ns - self.opened_ns > SETTINGS_NS_MAX;
        let stuck = unsent && now_ns - self.sent_ns > SEND_STALL_NS_MAX;
        let lost =
            self.pinged_ns > self.received_ns && now_ns - self.pinged_ns > KEEPALIVE_TIMEOUT_NS;
        let grace_ns = server.limits.grace_ns;
        match self.shutdown_state {
            _ if mute || stuck || lost => self.dead = true,
            ShutdownState::Not if now_ns - self.opened_ns > self.age_ns_max => {
                self.leave(now_ns);
                return true;
            }
            ShutdownState::Not if quiet_ns > KEEPALIVE_NS && self.pinged_ns <= self.received_ns => {
                self.pinged_ns = now_ns;
                self.session.ping();
                return true;
            }
            ShutdownState::NoticeSent(at_ns)
                if self.streams.ping_acked || now_ns - at_ns > SHUTDOWN_NOTICE_NS =>
            {
                self.send_goaway(server);
                return true;
            }
            ShutdownState::GoAwaySent(at_ns) if now_ns - at_ns > grace_ns => self.dead = true,
            ShutdownState::WriteClosed(at_ns) if now_ns - at_ns > self.close_wait_ns() => {
                self.dead = true
            }
            _ => {}
        }
        false
    }

    /// The peer answered our ping: no call that it sent before the notice is still on its way.
    pub fn on_ping_ack(&mut self, server: &mut ServerState) {
        if matches!(self.shutdown_state, ShutdownState::NoticeSent(_)) && self.streams.ping_acked {
            self.send_goaway(server);
        }
    }

    /// GOAWAY; then streams of messages, which would never end, are told to open again elsewhere.
    fn send_goaway(&mut self, server: &mut ServerState) {
        self.shutdown_state = ShutdownState::GoAwaySent(server.now_ns);
        self.session.goaway(code::NO_ERROR, b"");
        self.streams.leaving = true;
        let ids: Vec<i32> = self.streams.open.keys().copied().collect();
        for id in ids {
            self.streams.end_when_idle(id);
        }
    }

    /// Give back all that its calls hold.
    pub fn close(&mut self, server: &mut ServerState) {
        let ids: Vec<i32> = self.streams.open.keys().copied().collect();
        let mut events = StreamEvents {
            streams: &mut self.streams,
            server,
        };
        for id in ids {
            crate::sys::nghttp2::Events::closed(&mut events, id, code::CANCEL);
        }
    }
}
