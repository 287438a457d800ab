//! The I/O thread: one loop over sockets, Python's commands and the clock. It never takes the GIL.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::calls::refusal::{code, Refusal};
use crate::http2::accept::{Accepted, Listeners};
use crate::http2::bounds::client::Client;
use crate::http2::conn::Conn;
use crate::http2::service::{Limits, Service, StreamRef, TimerKind};
use crate::http2::socket::{Listener, Socket, BACKLOG};
use crate::http2::stream::{Method, Phase};
use crate::http2::stream_events::StreamEvents;
use crate::http2::tls::Tls;
use crate::io_thread::clients::{Clients, Room};
use crate::io_thread::server_state::ServerState;
use crate::io_thread::shared::{Command, Shared};
use crate::io_thread::store_connection::StoreConnection;
use crate::io_thread::usual_groups::FreshCall;
use crate::sys::os::{now_ns, Poller, Ready};

const READ_BYTES: usize = 64 * 1024;
/// Interval at which the timeouts of connections are checked.
pub(super) const TICK_NS: i64 = 100_000_000;
/// Interval at which certificate files are checked for changes.
const CERTIFICATES_NS: i64 = 1_000_000_000;
/// Time of one turn in which compressed messages are inflated. Then other callers are served.
const INFLATE_NS_MAX: i64 = 1_000_000;
/// Connections accepted from one listener in one turn, so that the calls of others are served between.
const ACCEPTED_MAX: usize = 16;
/// Poller token of `Shared::io_waker`. Listeners have the tokens below it, connections the others.
const WAKER_TOKEN: u64 = u64::MAX;
/// Poller token of the connection to the feature store.
pub(super) const STORE_TOKEN: u64 = u64::MAX - 64;

/// Everything that the I/O thread owns.
///
/// A connection lies at an index of `conns`. Its token is that index with a serial number above it, so
/// a late event or reply for a closed connection does not reach the next one at the same index.
pub struct Io {
    pub(super) server: ServerState,
    pub(super) poller: Poller,
    pub(super) listeners: Listeners,
    pub(super) conns: Vec<Option<Box<Conn>>>,
    pub(super) free_indexes: Vec<u32>,
    last_serial: u32,
    pub(super) open_conns: usize,
    pub(super) clients: Clients,
    /// Tokens of connections that are flushed at the end of this turn.
    dirty: Vec<u64>,
    tls: Option<Arc<Tls>>,
    certificates_checked_ns: i64,
    pub(super) ticked_ns: i64,
    pub(super) draining: bool,
    pub(super) running: bool,
    /// The connection to the feature store. None: Python reads.
    pub(super) store: Option<Box<StoreConnection>>,
    /// Calls that share the next read.
    pub(super) waiting_for_store: Vec<FreshCall>,
}

/// Start the I/O thread. `methods` is by path.
pub fn start(
    limits: Limits,
    methods: HashMap<Vec<u8>, Method>,
    shared: Arc<Shared>,
    tls: Option<Arc<Tls>>,
) -> std::io::Result<JoinHandle<()>> {
    let poller = Poller::new()?;
    poller.add(shared.io_waker.as_raw_fd(), WAKER_TOKEN, true, false)?;
    let clients = Clients::new(limits.connections_max, limits.client_connections_max);
    let io = Io {
        server: ServerState::new(limits, methods, shared),
        poller,
        listeners: Listeners::default(),
        conns: Vec::new(),
        free_indexes: Vec::new(),
        last_serial: 1,
        open_conns: 0,
        clients,
        dirty: Vec::new(),
        tls,
        certificates_checked_ns: 0,
        ticked_ns: 0,
        draining: false,
        running: true,
        store: None,
        waiting_for_store: Vec::new(),
    };
    thread::Builder::new().name("ingress".to_owned()).spawn(move || io.run())
}

impl Io {
    fn run(mut self) {
        let mut ready: Vec<Ready> = Vec::new();
        let mut commands: Vec<Command> = Vec::new();
        let mut buffer = vec![0; READ_BYTES];
        let shared = Arc::clone(&self.server.shared);
        while self.running {
            // Wait. `io_sleeps` is set before the check for commands, so that none is missed.
            self.pause_while_busy(&shared);
            shared.io_sleeps.store(true, Ordering::SeqCst);
            let ms = if shared.has_commands() { 0 } else { self.poll_timeout_ms() };
            let slept_ns = now_ns();
            self.poller.wait(ms, &mut ready);
            shared.io_sleeps.store(false, Ordering::SeqCst);
            self.server.now_ns = now_ns();
            let suspended = self.add_suspended_time(slept_ns, ms);
            // Execute Python's commands.
            shared.take_commands(&mut commands);
            for command in commands.drain(..) {
                self.execute(command);
            }
            // Serve the sockets that are ready.
            for event in &ready {
                if event.token == WAKER_TOKEN {
                    shared.io_waker.clear();
                } else if event.token == STORE_TOKEN {
                    self.serve_store(event, &mut buffer);
                } else if let Some(listener) = Listeners::index(event.token) {
                    self.accept(listener, ACCEPTED_MAX);
                } else {
                    self.serve(event, &mut buffer);
                }
            }
            self.inflate();
            // Check timeouts, answer usual calls, send what there is to send, and wake Python.
            if !suspended {
                self.check_timers();
                self.check_store();
            }
            self.answer_fresh_calls();
            self.flush();
            self.notify_python(&shared);
        }
    }

    /// Wake Python if this turn has brought something for it.
    fn notify_python(&mut self, shared: &Shared) {
        let calls_admitted = std::mem::take(&mut self.server.calls_admitted);
        let events_pending = std::mem::take(&mut self.server.events_pending);
        if calls_admitted {
            shared.calls_admitted();
        }
        if let Some(callers) = self.server.callers.as_mut() {
            if !callers.refusals.is_empty() {
                shared.add_caller_refusals(&mut callers.refusals);
            }
        }
        if events_pending {
            shared.python_waker.wake();
        }
    }

    // Accepting

    /// Accept up to `most` connections that wait at one listener.
    fn accept(&mut self, listener: usize, most: usize) {
        for _ in 0..most {
            match self.listeners.accept(listener, &self.poller) {
                Accepted::Connection(socket, client) => self.add_connection(socket, client),
                Accepted::Aborted => {}
                Accepted::Nothing => return,
            }
        }
    }

    pub(super) fn listen(&mut self, listener: Listener) {
        self.listeners.add(listener, &self.poller);
    }

    /// Close every listener, after accepting all connections that wait there.
    ///
    /// If another process shares the socket, it goes on accepting, and no connection is lost. If not,
    /// the kernel resets connections that arrive between the last accept and the close.
    pub(super) fn close_listeners(&mut self) {
        for listener in 0..self.listeners.len() {
            self.accept(listener, BACKLOG as usize);
            self.listeners.close(listener, &self.poller);
        }
    }

    fn add_connection(&mut self, socket: Socket, client: Client) {
        // Find room. A connection without room is closed as its socket is dropped.
        match self.clients.room(client, self.open_conns) {
            Room::Free => {}
            Room::Taken => return,
            Room::Of(biggest) => self.make_room(biggest),
        }
        // Choose an index and a token, and watch the socket.
        let index = self.free_indexes.pop().unwrap_or_else(|| {
            self.conns.push(None);
            self.conns.len() as u32 - 1
        });
        self.last_serial = self.last_serial.wrapping_add(1).max(1) & 0x7fff_ffff;
        let token = u64::from(self.last_serial) << 32 | u64::from(index);
        if self.poller.add(socket.as_raw_fd(), token, true, false).is_err() {
            self.free_indexes.push(index);
            return;
        }
        // Open the connection. A draining worker begins to close it at once.
        let age_ns = with_jitter(self.server.limits.age_ns_max, token);
        let budgets = self.clients.add(client, token, &self.server.budgets);
        let owner = (client, budgets.connection());
        let mut conn = Box::new(Conn::new(token, socket, owner, &self.server, age_ns));
        if self.draining {
            conn.begin_shutdown(self.server.now_ns);
        }
        self.conns[index as usize] = Some(conn);
        self.open_conns += 1;
        self.publish_open_conns();
        self.mark_dirty(token);
    }

    // Connections

    pub(super) fn publish_open_conns(&self) {
        self.server.shared.connections.store(self.open_conns as u64, Ordering::SeqCst);
    }

    /// The connection with this token, together with the server's state.
    pub(super) fn conn_and_server(&mut self, token: u64) -> Option<(&mut Conn, &mut ServerState)> {
        let conn = self.conns.get_mut(token as u32 as usize)?.as_deref_mut()?;
        (conn.streams.token == token).then_some((conn, &mut self.server))
    }

    /// Have a connection flushed at the end of this turn.
    pub(super) fn mark_dirty(&mut self, token: u64) {
        let conn = self.conns.get_mut(token as u32 as usize).and_then(Option::as_deref_mut);
        if let Some(conn) = conn.filter(|conn| conn.streams.token == token) {
            if !conn.dirty {
                conn.dirty = true;
                self.dirty.push(token);
            }
        }
    }

    fn serve(&mut self, ready: &Ready, buffer: &mut [u8]) {
        if let Some((conn, server)) = self.conn_and_server(ready.token) {
            if ready.readable {
                conn.read(server, buffer);
                conn.on_ping_ack(server);
            }
            self.mark_dirty(ready.token);
        }
    }

    /// Inflate slices of compressed messages, in the order of their clients' turns.
    fn inflate(&mut self) {
        let until_ns = self.server.now_ns + INFLATE_NS_MAX;
        while let Some((_, stream_ref)) = self.server.inflations.pop() {
            if let Some((conn, server)) = self.conn_and_server(stream_ref.token) {
                let streams = &mut conn.streams;
                let mut events = StreamEvents {
                    streams,
                    server,
                };
                events.inflate_slice(stream_ref.stream);
                self.mark_dirty(stream_ref.token);
            }
            if now_ns() >= until_ns {
                return;
            }
        }
    }

    /// Flush every dirty connection, and drop those that are dead.
    fn flush(&mut self) {
        for token in std::mem::take(&mut self.dirty) {
            let index = token as u32 as usize;
            let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
                continue;
            };
            if conn.streams.token != token {
                continue;
            }
            conn.dirty = false;
            if !conn.dead {
                conn.flush(&mut self.server);
                conn.update_watch(&self.poller);
            }
            if conn.dead {
                self.drop_connection(index);
            }
        }
    }

    // Time

    fn check_timers(&mut self) {
        // Timers of streams, each at its time.
        while let Some((stream, kind)) = self.server.expired_timer() {
            self.time_out(stream, kind);
        }
        if self.server.now_ns - self.ticked_ns < TICK_NS {
            return;
        }
        self.ticked_ns = self.server.now_ns;
        // Certificates, once a second.
        if self.server.now_ns - self.certificates_checked_ns >= CERTIFICATES_NS {
            self.certificates_checked_ns = self.server.now_ns;
            if let Some(tls) = &self.tls {
                tls.refresh();
            }
        }
        // Timeouts of connections, at every tick.
        for index in 0..self.conns.len() {
            let Some(conn) = self.conns[index].as_deref_mut() else {
                continue;
            };
            let token = conn.streams.token;
            if conn.on_tick(&mut self.server) || conn.dead {
                self.mark_dirty(token);
            }
        }
    }

    /// End a stream whose timer has expired, if what the timer is for has not happened.
    fn time_out(&mut self, stream_ref: StreamRef, kind: TimerKind) {
        let Some((conn, server)) = self.conn_and_server(stream_ref.token) else {
            return;
        };
        let Some(stream) = conn.streams.open.get(&stream_ref.stream) else {
            return;
        };
        if let (TimerKind::Message, Phase::Open, Some(answer)) =
            (kind, stream.phase, stream.http_answer)
        {
            conn.streams.end_http(stream_ref.stream, answer);
            return self.mark_dirty(stream_ref.token);
        }
        let refusal = match kind {
            // The bound is ours, and the caller has time left: its gRPC may call again.
            TimerKind::Message if stream.phase == Phase::Open && stream.raw_call == 0 => {
                let message = "the call's message did not arrive in time (message_ms_max)";
                Refusal::new(code::UNAVAILABLE, message)
            }
            TimerKind::Deadline if stream.end.is_none() => {
                Refusal::new(code::DEADLINE_EXCEEDED, "Deadline Exceeded")
            }
            _ => return,
        };
        if kind == TimerKind::Message {
            server.count_refusal("", &refusal);
        }
        if stream.raw_call != 0 {
            server.close_raw_call(stream.raw_call);
        }
        conn.streams.refuse(stream_ref.stream, &refusal);
        self.mark_dirty(stream_ref.token);
    }
}

/// `age_ns` plus or minus up to a tenth, so that clients do not all reconnect at once.
fn with_jitter(age_ns: i64, token: u64) -> i64 {
    let drawn = (token >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    age_ns + age_ns / 10 * (drawn as i64 - (1 << 23)) / (1 << 23)
}
