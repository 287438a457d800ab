//! One connection: its socket, its HTTP/2 session, its timeouts and its graceful shutdown.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;

use crate::http2::bounds::budget::Budgets;
use crate::http2::bounds::client::Client;
use crate::http2::service::{Service, StreamRef, TimerKind};
use crate::http2::socket::Socket;
use crate::http2::stream::Phase;
use crate::http2::stream_events::StreamEvents;
use crate::http2::streams::Streams;
use crate::sys::nghttp2::{error_code, reset_frame, Events, Session, SessionSettings};
use crate::sys::os::Poller;

/// Bytes that are collected for one write.
const WRITE_BYTES: usize = 256 * 1024;
/// Unsent bytes. Above this, nothing more is read from the peer.
const UNSENT_BYTES_MAX: usize = 512 * 1024;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: i32 = 4 * 1024 * 1024;

const SECOND: i64 = 1_000_000_000;
/// Time from accepting the connection to the peer's first SETTINGS.
const SETTINGS_NS_MAX: i64 = 2 * SECOND;
/// Keepalive: after this much silence, a PING is sent.
const KEEPALIVE_NS: i64 = 20 * SECOND;
/// Keepalive: the connection is closed when nothing arrives so long after the PING.
const KEEPALIVE_TIMEOUT_NS: i64 = 5 * SECOND;
/// The connection is closed when the peer has read none of the waiting bytes for so long.
const SEND_STALL_NS_MAX: i64 = 20 * SECOND;
/// Time from the shutdown notice to the final GOAWAY, unless the peer acknowledges the PING earlier.
const SHUTDOWN_NOTICE_NS: i64 = 5 * SECOND;
/// The final GOAWAY waits until no stream has begun for so long. Some clients (grpc-java) begin calls
/// that they had queued after the notice, and fail those that the final GOAWAY cuts off.
const QUIET_NS: i64 = 200_000_000;
/// Time from shutting down our side to closing, unless the peer closes earlier. What the peer sends
/// meanwhile is read and discarded: bytes that arrive at a closed socket make the kernel send a
/// reset, and the reset can overtake replies that are still on their way.
const CLOSE_WAIT_NS: i64 = 5 * SECOND;
/// CLOSE_WAIT_NS for a peer that exceeded a frame limit.
const FLOODED_CLOSE_WAIT_NS: i64 = SECOND;

/// How far a connection's shutdown has come, and since when.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ShutdownState {
    /// The connection serves calls.
    Serving,
    /// A GOAWAY that allows every stream was sent, and a PING behind it.
    NoticeSent(i64),
    /// The final GOAWAY was sent. Open streams go on.
    GoAwaySent(i64),
    /// Our side of the socket is shut down. The peer's bytes are discarded until it closes.
    WriteClosed(i64),
}

/// A connection from accept to close.
///
/// The I/O loop calls `read` when the socket is readable, `flush` after each turn in which something
/// happened, and `on_tick` ten times a second. A connection with `dead` set is closed and dropped by
/// the loop. Shutdown goes through the states of `ShutdownState`, so that no call is lost that the
/// client sent before it knew.
pub struct Conn {
    socket: Socket,
    session: Session,
    /// The state of its streams.
    pub streams: Streams,
    out: Vec<u8>,
    /// Bytes of `out` that the socket took.
    out_sent: usize,
    /// What the poller watches the socket for.
    watches_read: bool,
    watches_write: bool,
    shutdown: ShutdownState,
    opened_ns: i64,
    age_ns_max: i64,
    /// When bytes were last received.
    received_ns: i64,
    /// When the last keepalive PING was sent.
    pinged_ns: i64,
    /// When the socket last took bytes, or there were none to send.
    sent_ns: i64,
    /// The I/O loop will flush it in this turn.
    pub dirty: bool,
    /// The I/O loop has to close it.
    pub dead: bool,
}

impl Conn {
    /// A connection of `client` that was just accepted. Its shutdown begins at the age `age_ns_max`.
    pub fn new<S: Service>(
        token: u64,
        socket: Socket,
        (client, budgets): (Client, Budgets),
        server: &S,
        age_ns_max: i64,
    ) -> Conn {
        let session = Session::new(SessionSettings {
            max_concurrent_streams: server.limits().streams_max,
            initial_window_size: STREAM_WINDOW,
            connection_window_size: CONNECTION_WINDOW,
            max_header_list_size: server.limits().metadata_bytes_max as u32,
        });
        let now_ns = server.now_ns();
        Conn {
            socket,
            session,
            streams: Streams::new(token, client, budgets, server.limits().resets_s_max),
            out: Vec::new(),
            out_sent: 0,
            watches_read: true,
            watches_write: false,
            shutdown: ShutdownState::Serving,
            opened_ns: now_ns,
            age_ns_max,
            received_ns: now_ns,
            pinged_ns: 0,
            sent_ns: now_ns,
            dirty: false,
            dead: false,
        }
    }

    /// Read what has arrived, one buffer at most, so that other connections get their turn.
    pub fn read<S: Service>(&mut self, server: &mut S, buffer: &mut [u8]) {
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
            self.receive(server, &buffer[..count]);
            // A TLS session may hold decrypted bytes, which the poller does not see.
            if self.dead || !matches!(self.socket, Socket::Tls(_)) {
                return;
            }
        }
    }

    /// Pass received bytes to the session, which calls `StreamEvents`.
    fn receive<S: Service>(&mut self, server: &mut S, bytes: &[u8]) {
        self.received_ns = server.now_ns();
        if matches!(self.shutdown, ShutdownState::WriteClosed(_)) || self.streams.flooded {
            return;
        }
        if self.streams.caller.certificate_names.is_none() {
            self.streams.caller.certificate_names = self.socket.certificate_names();
        }
        let mut events = StreamEvents {
            streams: &mut self.streams,
            server,
        };
        if self.session.receive(bytes, &mut events).is_err() {
            // The session has written a GOAWAY that says why.
            self.flush(server);
            self.dead = true;
            return;
        }
        // Most messages arrive with their headers. The others get a timer.
        for id in std::mem::take(&mut self.streams.new_streams) {
            let waits = self.streams.open.get(&id).filter(|stream| stream.phase == Phase::Open);
            if let Some(stream) = waits {
                let at_ns = stream.arrived_ns + server.limits().body_ns_max;
                let stream_ref = StreamRef {
                    token: self.streams.token,
                    stream: id,
                };
                server.set_timer(at_ns, stream_ref, TimerKind::Message);
            }
        }
    }

    /// Why the TLS handshake was refused: a reason, and the error's words. None: it was not.
    pub fn handshake_refusal(&mut self) -> Option<(&'static str, String)> {
        self.socket.handshake_refusal()
    }

    /// Shift the times of this connection by `ns` during which the process did not run.
    pub fn add_suspended_time(&mut self, ns: i64) {
        for at_ns in [&mut self.opened_ns, &mut self.received_ns, &mut self.sent_ns] {
            *at_ns += ns;
        }
        if self.pinged_ns > 0 {
            self.pinged_ns += ns;
        }
    }

    /// Carry out what callbacks noted, and send what there is to send.
    pub fn flush<S: Service>(&mut self, server: &mut S) {
        loop {
            // Let nghttp2 write frames into `out`. This runs callbacks, which may note more.
            self.streams.apply(&mut self.session);
            let mut events = StreamEvents {
                streams: &mut self.streams,
                server: &mut *server,
            };
            if self.session.send(&mut events, &mut self.out, WRITE_BYTES).is_err() {
                self.dead = true;
            }
            for id in std::mem::take(&mut self.streams.late_resets) {
                self.out.extend_from_slice(&reset_frame(id, error_code::STREAM_CLOSED));
            }
            let more = self.reset_half_closed()
                || self.out.len() >= WRITE_BYTES
                || !self.streams.actions.is_empty();
            if !self.write(server.now_ns()) || self.dead || !more {
                break;
            }
        }
        // After the last frame: shut down our side, and end all calls.
        let over = self.streams.flooded || !self.session.wants_io();
        let write_closed = matches!(self.shutdown, ShutdownState::WriteClosed(_));
        if over && self.out.is_empty() && !write_closed {
            self.shutdown = ShutdownState::WriteClosed(server.now_ns());
            self.socket.shutdown_write();
            self.close(server);
        }
    }

    /// Reset streams that are finished here while the client has not sent END_STREAM. Otherwise they
    /// would count against the client's concurrent streams for ever.
    fn reset_half_closed(&mut self) -> bool {
        let mut reset = false;
        for id in std::mem::take(&mut self.streams.half_closed_local) {
            match self.streams.open.get(&id) {
                Some(stream) if !stream.remote_closed && self.session.is_local_closed(id) => {
                    self.session.reset(id, error_code::NO_ERROR);
                    reset = true;
                }
                Some(stream) if !stream.remote_closed => self.streams.half_closed_local.push(id),
                _ => {}
            }
        }
        reset
    }

    /// Write `out` to the socket. False: the socket takes no more now.
    fn write(&mut self, now_ns: i64) -> bool {
        while self.out_sent < self.out.len() {
            match self.socket.write(&self.out[self.out_sent..]) {
                Ok(count) => {
                    self.out_sent += count;
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
        self.out_sent = 0;
        self.sent_ns = now_ns;
        match self.socket.flush() {
            Ok(()) => true,
            Err(error) => {
                self.dead |= error.kind() != ErrorKind::WouldBlock;
                false
            }
        }
    }

    /// Tell the poller what the socket has to be ready for.
    pub fn update_watch(&mut self, poller: &Poller) {
        let reads = self.out.len() - self.out_sent < UNSENT_BYTES_MAX;
        let writes = self.out_sent < self.out.len() || self.socket.has_unsent();
        if (reads, writes) != (self.watches_read, self.watches_write) {
            (self.watches_read, self.watches_write) = (reads, writes);
            let fd = self.socket.as_raw_fd();
            if poller.modify(fd, self.streams.token, reads, writes).is_err() {
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

    /// Begin a graceful shutdown: a GOAWAY that allows every stream, and a PING behind it. Calls that
    /// are on their way are served.
    pub fn begin_shutdown(&mut self, now_ns: i64) {
        if self.shutdown == ShutdownState::Serving {
            self.shutdown = ShutdownState::NoticeSent(now_ns);
            self.streams.ping_acked = false;
            self.session.submit_shutdown_notice();
            self.session.ping();
        }
    }

    /// Check every timeout. True: there is something to flush.
    pub fn on_tick<S: Service>(&mut self, server: &mut S) -> bool {
        let now_ns = server.now_ns();
        let silent_ns = now_ns - self.received_ns;
        let unsent = self.out_sent < self.out.len();
        // Three faults of the peer end the connection in any state.
        let no_settings =
            !self.streams.settings_received && now_ns - self.opened_ns > SETTINGS_NS_MAX;
        let send_stalled = unsent && now_ns - self.sent_ns > SEND_STALL_NS_MAX;
        let ping_unanswered =
            self.pinged_ns > self.received_ns && now_ns - self.pinged_ns > KEEPALIVE_TIMEOUT_NS;
        let grace_ns = server.limits().grace_ns;
        match self.shutdown {
            _ if no_settings || send_stalled || ping_unanswered => self.dead = true,
            // Serving -> NoticeSent, by age.
            ShutdownState::Serving if now_ns - self.opened_ns > self.age_ns_max => {
                self.begin_shutdown(now_ns);
                return true;
            }
            // Keepalive.
            ShutdownState::Serving
                if silent_ns > KEEPALIVE_NS && self.pinged_ns <= self.received_ns =>
            {
                self.pinged_ns = now_ns;
                self.session.ping();
                return true;
            }
            // NoticeSent -> GoAwaySent, also when the PING stays unanswered or calls go on to begin.
            ShutdownState::NoticeSent(at_ns)
                if self.may_go_away(now_ns, server.limits().streams_max)
                    || now_ns - at_ns > SHUTDOWN_NOTICE_NS =>
            {
                self.send_goaway(server);
                return true;
            }
            // GoAwaySent -> closed, when calls take longer than the grace.
            ShutdownState::GoAwaySent(at_ns) if now_ns - at_ns > grace_ns => self.dead = true,
            // WriteClosed -> closed, when the peer does not close.
            ShutdownState::WriteClosed(at_ns) if now_ns - at_ns > self.close_wait_ns() => {
                self.dead = true;
            }
            _ => {}
        }
        false
    }

    /// Send the final GOAWAY if the peer acknowledged the PING behind the notice and begins no calls.
    pub fn on_ping_ack<S: Service>(&mut self, server: &mut S) {
        let noticed = matches!(self.shutdown, ShutdownState::NoticeSent(_));
        if noticed && self.may_go_away(server.now_ns(), server.limits().streams_max) {
            self.send_goaway(server);
        }
    }

    /// Whether no call is on its way: the peer has read the notice, and it neither begins calls nor
    /// waits for room to begin some.
    fn may_go_away(&self, now_ns: i64, streams_max: u32) -> bool {
        self.streams.ping_acked
            && now_ns - self.streams.newest_stream_ns > QUIET_NS
            && self.streams.open.len() < streams_max as usize
    }

    /// Send the final GOAWAY, and end idle PredictStreams, which might never end by themselves.
    fn send_goaway<S: Service>(&mut self, server: &mut S) {
        self.shutdown = ShutdownState::GoAwaySent(server.now_ns());
        self.session.goaway(error_code::NO_ERROR, b"");
        self.streams.going_away = true;
        let ids: Vec<i32> = self.streams.open.keys().copied().collect();
        for id in ids {
            self.streams.end_when_idle(id);
        }
    }

    /// Tell the peer that its connection makes room for those of others. The I/O loop closes it.
    pub fn make_room<S: Service>(&mut self, server: &mut S) {
        self.session.goaway(error_code::ENHANCE_YOUR_CALM, b"too_many_connections");
        self.flush(server);
        self.dead = true;
    }

    /// Release the calls of all streams.
    pub fn close<S: Service>(&mut self, server: &mut S) {
        let ids: Vec<i32> = self.streams.open.keys().copied().collect();
        let mut events = StreamEvents {
            streams: &mut self.streams,
            server,
        };
        for id in ids {
            events.stream_closed(id, error_code::CANCEL);
        }
        if let Some(callers) = server.callers() {
            callers.close(&mut self.streams.caller);
        }
    }
}
