//! The I/O thread: one loop over sockets, Python's words and the clock. It never takes the GIL.

mod doorway;
mod orders;

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::bridge::{Bridge, Command};
use crate::conn::Conn;
use crate::house::{Due, House, Limits, Place};
use crate::pace;
use crate::shape::{code, Refusal};
use crate::socket::Listener;
use crate::stream::{Method, Phase};
use crate::sys::os::{now_ns, Poller, Ready};
use crate::tls::Tls;

const READ_BYTES: usize = 64 * 1024;
/// Between looks at connections' ages.
const TICK_NS: i64 = 100_000_000;
const BELL: u64 = u64::MAX;
/// And below: one for each place where connections come from.
const LISTENER: u64 = u64::MAX - 1;
const LISTENERS_MAX: u64 = 8;
/// Between looks at whether certificates changed.
const CERTIFICATES_NS: i64 = 1_000_000_000;
/// The thread slept this much longer than it meant to: it was stopped, and nobody's silence counts.
const STOPPED_NS: i64 = 400_000_000;

/// Everything the thread owns.
pub struct Io {
    house: House,
    poller: Poller,
    conns: Vec<Option<Box<Conn>>>,
    free: Vec<u32>,
    serial: u32,
    open: usize,
    listeners: Vec<Option<Listener>>,
    tls: Option<Arc<Tls>>,
    refreshed_ns: i64,
    dirty: Vec<u64>,
    ticked_ns: i64,
    draining: bool,
    running: bool,
}

/// Start the thread.
pub fn start(
    limits: Limits,
    methods: HashMap<Vec<u8>, Method>,
    bridge: Arc<Bridge>,
    tls: Option<Arc<Tls>>,
) -> std::io::Result<JoinHandle<()>> {
    let poller = Poller::new()?;
    poller.add(bridge.io.as_raw_fd(), BELL, true, false)?;
    let io = Io {
        house: House::new(limits, methods, bridge),
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
        let bridge = Arc::clone(&self.house.bridge);
        while self.running {
            self.rest(&bridge);
            bridge.asleep.store(true, Ordering::SeqCst);
            let ms = if bridge.silent() { self.patience_ms() } else { 0 };
            let slept_ns = now_ns();
            self.poller.wait(ms, &mut ready);
            bridge.asleep.store(false, Ordering::SeqCst);
            self.house.now_ns = now_ns();
            let stopped = self.excuse(slept_ns, ms);
            bridge.commands(&mut commands);
            for command in commands.drain(..) {
                self.obey(command);
            }
            for one in &ready {
                match one.token {
                    BELL => bridge.io.hush(),
                    token if token > LISTENER - LISTENERS_MAX => {
                        self.accept((LISTENER - token) as usize);
                    }
                    token => self.serve(token, *one, &mut buffer),
                }
            }
            if !stopped {
                self.look_at_clock();
            }
            self.flush();
            self.tell(&bridge);
        }
    }

    /// While many are inside, let calls and answers gather between one look and the next.
    fn rest(&self, bridge: &Bridge) {
        if pace::crowded(bridge.calls_inside.load(Ordering::Relaxed)) {
            let left_ns = pace::LOOK_NS - (now_ns() - self.house.now_ns);
            if left_ns > 0 {
                thread::sleep(Duration::from_nanos(left_ns as u64));
            }
        }
    }

    /// After a stop of the whole process (a frozen guest, SIGSTOP), what peers sent meanwhile still
    /// lies unread: look at their clocks as if that time had not been. True: read first.
    fn excuse(&mut self, slept_ns: i64, ms: i32) -> bool {
        let over_ns = self.house.now_ns - slept_ns - i64::from(ms.max(0)) * 1_000_000;
        if ms < 0 || over_ns < STOPPED_NS {
            return false;
        }
        for conn in self.conns.iter_mut().flatten() {
            conn.excuse(over_ns);
        }
        true
    }

    fn patience_ms(&self) -> i32 {
        let now_ns = now_ns();
        let mut until_ns = self.house.next_look_ns().unwrap_or(i64::MAX);
        if self.open > 0 {
            until_ns = until_ns.min(self.ticked_ns + TICK_NS);
        }
        if until_ns == i64::MAX {
            return -1;
        }
        ((until_ns - now_ns).max(0) / 1_000_000 + 1).min(1_000) as i32
    }

    fn tell(&mut self, bridge: &Bridge) {
        let arrived = std::mem::take(&mut self.house.arrived);
        let spoke = std::mem::take(&mut self.house.spoke);
        if arrived {
            bridge.arrived();
        }
        if spoke {
            bridge.python.ring();
        }
    }

    // Connections

    fn count(&self) {
        self.house.bridge.connections.store(self.open as u64, Ordering::SeqCst);
    }

    fn conn(&mut self, token: u64) -> Option<&mut Conn> {
        let conn = self.conns.get_mut(token as u32 as usize)?.as_deref_mut()?;
        (conn.streams.token == token).then_some(conn)
    }

    /// A connection and the house, at once.
    fn pair(&mut self, token: u64) -> Option<(&mut Conn, &mut House)> {
        let conn = self.conns.get_mut(token as u32 as usize)?.as_deref_mut()?;
        (conn.streams.token == token).then_some((conn, &mut self.house))
    }

    /// Remember to flush.
    fn soil(&mut self, token: u64) {
        if let Some(conn) = self.conn(token) {
            if !conn.dirty {
                conn.dirty = true;
                self.dirty.push(token);
            }
        }
    }

    fn serve(&mut self, token: u64, ready: Ready, buffer: &mut [u8]) {
        if let Some((conn, house)) = self.pair(token) {
            if ready.read {
                conn.read(house, buffer);
                conn.heard_notice(house);
            }
            self.soil(token);
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
                conn.flush(&mut self.house);
                conn.watch(&self.poller);
            }
            if conn.dead {
                conn.close(&mut self.house);
                self.conns[token as u32 as usize] = None;
                self.free.push(token as u32);
                self.open -= 1;
                self.count();
            }
        }
    }

    fn look_at_clock(&mut self) {
        while let Some((place, due)) = self.house.due() {
            self.overdue(place, due);
        }
        if self.house.now_ns - self.ticked_ns < TICK_NS {
            return;
        }
        self.ticked_ns = self.house.now_ns;
        if self.house.now_ns - self.refreshed_ns >= CERTIFICATES_NS {
            self.refreshed_ns = self.house.now_ns;
            if let Some(tls) = &self.tls {
                tls.refresh();
            }
        }
        for index in 0..self.conns.len() {
            let Some(conn) = self.conns[index].as_deref_mut() else {
                continue;
            };
            let token = conn.streams.token;
            if conn.tick(&mut self.house) || conn.dead {
                self.soil(token);
            }
        }
    }

    /// A stream whose message, or end, is overdue.
    fn overdue(&mut self, place: Place, due: Due) {
        let Some((conn, house)) = self.pair(place.token) else {
            return;
        };
        let Some(stream) = conn.streams.open.get(&place.stream) else {
            return;
        };
        let words = match due {
            Due::Message if stream.phase == Phase::Open => {
                "the call's message did not arrive in time (message_ms_max)"
            }
            Due::Deadline if stream.ending.is_none() => "Deadline Exceeded",
            _ => return,
        };
        let refusal = Refusal::new(code::DEADLINE_EXCEEDED, words);
        if due == Due::Message {
            house.refused("", &refusal);
        }
        let raw = stream.raw;
        if raw != 0 && house.raws.remove(&raw).is_some() {
            house.event(crate::bridge::Event::Gone(raw));
        }
        conn.streams.refuse(place.stream, &refusal);
        self.soil(place.token);
    }
}
