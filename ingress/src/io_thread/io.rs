//! The I/O thread: one loop over sockets, Python's words and the clock. It never takes the GIL.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::calls::shape::{code, Refusal};
use crate::http2::conn::Conn;
use crate::http2::socket::Listener;
use crate::http2::stream::{Method, Phase};
use crate::http2::tls::Tls;
use crate::io_thread::batch_timing;
use crate::io_thread::server_state::{Limits, ServerState, StreamRef, TimerKind};
use crate::io_thread::shared::{Command, Shared};
use crate::sys::os::{now_ns, Poller, Ready};

const READ_BYTES: usize = 64 * 1024;
/// Between looks at connections' ages.
const TICK_NS: i64 = 100_000_000;
const WAKER_TOKEN: u64 = u64::MAX;
/// And below: one for each place where connections come from.
pub(crate) const LISTENER_TOKEN: u64 = u64::MAX - 1;
const LISTENERS_MAX: u64 = 8;
/// Between looks at whether certificates changed.
const CERTIFICATES_NS: i64 = 1_000_000_000;
/// The thread slept this much longer than it meant to: it was stopped, and nobody's silence counts.
const SUSPENDED_NS_MIN: i64 = 400_000_000;

/// Everything the thread owns.
pub struct Io {
    pub(crate) server: ServerState,
    pub(crate) poller: Poller,
    pub(crate) conns: Vec<Option<Box<Conn>>>,
    pub(crate) free: Vec<u32>,
    pub(crate) serial: u32,
    pub(crate) open: usize,
    pub(crate) listeners: Vec<Option<Listener>>,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) refreshed_ns: i64,
    pub(crate) dirty: Vec<u64>,
    pub(crate) ticked_ns: i64,
    pub(crate) draining: bool,
    pub(crate) running: bool,
}

/// Start the thread.
pub fn start(
    limits: Limits,
    methods: HashMap<Vec<u8>, Method>,
    shared: Arc<Shared>,
    tls: Option<Arc<Tls>>,
) -> std::io::Result<JoinHandle<()>> {
    let poller = Poller::new()?;
    poller.add(shared.io.as_raw_fd(), WAKER_TOKEN, true, false)?;
    let io = Io {
        server: ServerState::new(limits, methods, shared),
        poller,
        conns: Vec::new(),
        free: Vec::new(),
        serial: 1,
        open: 0,
        listeners: Vec::new(),
        tls,
        refreshed_ns: 0,
        dirty: Vec::new(),
        ticked_ns: 0,
        draining: false,
        running: true,
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
            self.rest(&shared);
            shared.asleep.store(true, Ordering::SeqCst);
            let ms = if shared.has_no_commands() { self.poll_timeout_ms() } else { 0 };
            let slept_ns = now_ns();
            self.poller.wait(ms, &mut ready);
            shared.asleep.store(false, Ordering::SeqCst);
            self.server.now_ns = now_ns();
            let stopped = self.add_suspended_time(slept_ns, ms);
            shared.commands(&mut commands);
            for command in commands.drain(..) {
                self.execute(command);
            }
            for one in &ready {
                match one.token {
                    WAKER_TOKEN => shared.io.clear(),
                    token if token > LISTENER_TOKEN - LISTENERS_MAX => {
                        self.accept((LISTENER_TOKEN - token) as usize);
                    }
                    token => self.serve(token, *one, &mut buffer),
                }
            }
            if !stopped {
                self.check_timers();
            }
            self.flush();
            self.tell(&shared);
        }
    }

    /// While many are inside, let calls and answers gather between one look and the next.
    fn rest(&self, shared: &Shared) {
        if batch_timing::is_busy(shared.calls_inside.load(Ordering::Relaxed)) {
            let left_ns = batch_timing::POLL_INTERVAL_NS - (now_ns() - self.server.now_ns);
            if left_ns > 0 {
                thread::sleep(Duration::from_nanos(left_ns as u64));
            }
        }
    }

    /// After a stop of the whole process (a frozen guest, SIGSTOP), what peers sent meanwhile still
    /// lies unread: look at their clocks as if that time had not been. True: read first.
    fn add_suspended_time(&mut self, slept_ns: i64, ms: i32) -> bool {
        let over_ns = self.server.now_ns - slept_ns - i64::from(ms.max(0)) * 1_000_000;
        if ms < 0 || over_ns < SUSPENDED_NS_MIN {
            return false;
        }
        for conn in self.conns.iter_mut().flatten() {
            conn.add_suspended_time(over_ns);
        }
        true
    }

    fn poll_timeout_ms(&self) -> i32 {
        let now_ns = now_ns();
        let mut until_ns = self.server.next_timer_ns().unwrap_or(i64::MAX);
        if self.open > 0 {
            until_ns = until_ns.min(self.ticked_ns + TICK_NS);
        }
        if until_ns == i64::MAX {
            return -1;
        }
        ((until_ns - now_ns).max(0) / 1_000_000 + 1).min(1_000) as i32
    }

    fn tell(&mut self, shared: &Shared) {
        let arrived = std::mem::take(&mut self.server.arrived);
        let events_pending = std::mem::take(&mut self.server.events_pending);
        if arrived {
            shared.arrived();
        }
        if events_pending {
            shared.python.wake();
        }
    }

    // Connections

    pub(crate) fn count(&self) {
        self.server.shared.connections.store(self.open as u64, Ordering::SeqCst);
    }

    fn conn(&mut self, token: u64) -> Option<&mut Conn> {
        let conn = self.conns.get_mut(token as u32 as usize)?.as_deref_mut()?;
        (conn.streams.token == token).then_some(conn)
    }

    /// A connection and the house, at once.
    pub(crate) fn pair(&mut self, token: u64) -> Option<(&mut Conn, &mut ServerState)> {
        let conn = self.conns.get_mut(token as u32 as usize)?.as_deref_mut()?;
        (conn.streams.token == token).then_some((conn, &mut self.server))
    }

    /// Remember to flush.
    pub(crate) fn mark_dirty(&mut self, token: u64) {
        if let Some(conn) = self.conn(token) {
            if !conn.dirty {
                conn.dirty = true;
                self.dirty.push(token);
            }
        }
    }

    fn serve(&mut self, token: u64, ready: Ready, buffer: &mut [u8]) {
        if let Some((conn, server)) = self.pair(token) {
            if ready.read {
                conn.read(server, buffer);
                conn.on_ping_ack(server);
            }
            self.mark_dirty(token);
        }
    }

    fn flush(&mut self) {
        for token in std::mem::take(&mut self.dirty) {
            let Some(conn) = self.conns.get_mut(token as u32 as usize).and_then(Option::as_mut)
            else {
                continue;
            };
            if conn.streams.token != token {
                continue;
            }
            conn.dirty = false;
            if !conn.dead {
                conn.flush(&mut self.server);
                conn.watch(&self.poller);
            }
            if conn.dead {
                conn.close(&mut self.server);
                self.conns[token as u32 as usize] = None;
                self.free.push(token as u32);
                self.open -= 1;
                self.count();
            }
        }
    }

    fn check_timers(&mut self) {
        while let Some((place, due)) = self.server.due() {
            self.time_out(place, due);
        }
        if self.server.now_ns - self.ticked_ns < TICK_NS {
            return;
        }
        self.ticked_ns = self.server.now_ns;
        if self.server.now_ns - self.refreshed_ns >= CERTIFICATES_NS {
            self.refreshed_ns = self.server.now_ns;
            if let Some(tls) = &self.tls {
                tls.refresh();
            }
        }
        for index in 0..self.conns.len() {
            let Some(conn) = self.conns[index].as_deref_mut() else {
                continue;
            };
            let token = conn.streams.token;
            if conn.tick(&mut self.server) || conn.dead {
                self.mark_dirty(token);
            }
        }
    }

    /// A stream whose message, or end, is overdue.
    fn time_out(&mut self, place: StreamRef, due: TimerKind) {
        let Some((conn, server)) = self.pair(place.token) else {
            return;
        };
        let Some(stream) = conn.streams.open.get(&place.stream) else {
            return;
        };
        let words = match due {
            TimerKind::Message if stream.phase == Phase::Open => {
                "the call's message did not arrive in time (body_ms_max)"
            }
            TimerKind::Deadline if stream.ending.is_none() => "Deadline Exceeded",
            _ => return,
        };
        let refusal = Refusal::new(code::DEADLINE_EXCEEDED, words);
        if due == TimerKind::Message {
            server.refused("", &refusal);
        }
        let raw = stream.raw;
        if raw != 0 && server.raw_calls.remove(&raw).is_some() {
            server.event(crate::io_thread::shared::Event::Gone(raw));
        }
        conn.streams.refuse(place.stream, &refusal);
        self.mark_dirty(place.token);
    }
}
