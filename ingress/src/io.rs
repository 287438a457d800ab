//! The I/O thread: one loop over sockets, Python's words and the clock. It never takes the GIL.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::bridge::{Bridge, Command};
use crate::conn::Conn;
use crate::grpc;
use crate::house::{Dialect, Due, House, Limits, Place, Route};
use crate::reply::Replies;
use crate::shape::{code, Refusal};
use crate::socket::Listener;
use crate::stream::{Ending, Method, Phase};
use crate::streams::Seat;
use crate::sys::nghttp2::Fields;
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
/// Connections accepted in one turn.
const ACCEPTED_MAX: usize = 64;

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
            bridge.asleep.store(true, Ordering::SeqCst);
            let ms = if bridge.silent() { self.patience_ms() } else { 0 };
            self.poller.wait(ms, &mut ready);
            bridge.asleep.store(false, Ordering::SeqCst);
            self.house.now_ns = now_ns();
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
            self.look_at_clock();
            self.flush();
            self.tell(&bridge);
        }
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
        let heard = arrived
            && bridge.rows_waiting.load(Ordering::SeqCst) > 0
            && bridge.armed.swap(false, Ordering::SeqCst);
        if spoke || heard {
            bridge.python.ring();
        }
    }

    // Connections

    fn accept(&mut self, at: usize) {
        for _ in 0..ACCEPTED_MAX {
            let Some(Some(listener)) = self.listeners.get(at) else {
                return;
            };
            let socket = match listener.accept() {
                Ok(socket) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The port was left (shut from Python), or this connection is gone already.
                Err(error) if error.kind() == ErrorKind::InvalidInput => {
                    self.listeners[at] = None;
                    return;
                }
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(_) => return,
            };
            if self.open >= self.house.limits.connections_max {
                continue; // closed at once
            }
            let index = self.free.pop().unwrap_or_else(|| {
                self.conns.push(None);
                self.conns.len() as u32 - 1
            });
            self.serial = self.serial.wrapping_add(1).max(1) & 0x7fff_ffff;
            let token = u64::from(self.serial) << 32 | u64::from(index);
            if self.poller.add(socket.as_raw_fd(), token, true, false).is_err() {
                self.free.push(index);
                continue;
            }
            let age_ns = jittered(self.house.limits.age_ns_max, token);
            let mut conn = Box::new(Conn::new(token, socket, &self.house, age_ns));
            if self.draining {
                conn.leave(self.house.now_ns);
            }
            self.conns[index as usize] = Some(conn);
            self.open += 1;
            self.count();
            self.soil(token);
        }
    }

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
                "the call's message did not arrive in time (body_ms_max)"
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

    // What Python says

    fn obey(&mut self, command: Command) {
        match command {
            Command::Configure(shapes) => {
                self.house.shapes = shapes;
                self.house.bridge.with_intake(|intake| intake.forget_empty());
            }
            Command::Listen(listener) => {
                let token = LISTENER - self.listeners.len() as u64;
                if self.poller.add(listener.as_raw_fd(), token, true, false).is_ok() {
                    self.listeners.push(Some(listener));
                }
            }
            Command::Answer(replies) => self.answer(&replies),
            Command::Refuse(handles, refusal) => {
                for handle in handles {
                    self.refuse(handle, &refusal);
                }
            }
            Command::More(raw) => self.with_raw(raw, |conn, house, id| {
                if let Some(stream) = conn.streams.open.get_mut(&id) {
                    stream.wanted += 1;
                    if stream.method == Some(Method::RawStream) {
                        let streams = &mut conn.streams;
                        Seat {
                            streams,
                            house,
                        }
                        .pump(id);
                    }
                }
            }),
            Command::Start(raw, initial) => self.with_raw(raw, |conn, _, id| {
                if let Some(stream) = conn.streams.open.get_mut(&id) {
                    stream.initial = initial;
                }
            }),
            Command::Send(raw, message) => self.with_raw(raw, |conn, _, id| {
                if let Some(stream) = conn.streams.open.get_mut(&id) {
                    stream.told_when_sent = true;
                }
                conn.streams.push(id, |out| out.extend_from_slice(&message));
            }),
            Command::Finish(raw, status, words, trailing) => {
                self.with_raw(raw, |conn, house, id| {
                    house.raws.remove(&raw);
                    conn.streams.end(id, ending(status, &words, trailing));
                });
            }
            Command::Drain => {
                self.draining = true;
                let unix = |listener: &mut Option<Listener>| {
                    listener.take_if(|listener| matches!(listener, Listener::Unix(_)));
                };
                self.listeners.iter_mut().for_each(unix);
                for index in 0..self.conns.len() {
                    if let Some(conn) = self.conns[index].as_deref_mut() {
                        let token = conn.streams.token;
                        conn.leave(self.house.now_ns);
                        self.soil(token);
                    }
                }
            }
            Command::Stop => {
                self.listeners.clear();
                for index in 0..self.conns.len() {
                    if let Some(conn) = self.conns[index].as_deref_mut() {
                        conn.flush(&mut self.house);
                        conn.close(&mut self.house);
                        self.conns[index] = None;
                    }
                }
                self.open = 0;
                self.count();
                self.running = false;
            }
        }
    }

    fn with_raw(&mut self, raw: u64, act: impl FnOnce(&mut Conn, &mut House, i32)) {
        let Some(place) = self.house.raws.get(&raw).copied() else {
            return;
        };
        if let Some((conn, house)) = self.pair(place.token) {
            act(conn, house, place.stream);
            self.soil(place.token);
        }
    }

    fn answer(&mut self, replies: &Replies) {
        let rows = replies.row_offsets.last().copied().unwrap_or(0);
        let now_ns = self.house.now_ns;
        // All routes before any slot is free: an answer makes room for calls that take those slots.
        let house = &mut self.house;
        let routes: Vec<_> =
            replies.handles.iter().map(|handle| house.take_route(*handle)).collect();
        house.bridge.with_intake(|intake| {
            intake.admission.rate.answered(u64::from(rows), now_ns);
            for handle in &replies.handles {
                intake.leave(*handle);
            }
        });
        let head = replies.head();
        let mut scratch = Vec::new();
        for (index, (handle, route)) in replies.handles.iter().zip(routes).enumerate() {
            let Some(Route {
                place,
                dialect,
                echo,
                ..
            }) = route
            else {
                continue;
            };
            let answer = replies.answer(index);
            let Some((conn, house)) = self.pair(place.token) else {
                continue;
            };
            let streams = &mut conn.streams;
            streams.push(place.stream, |out| match dialect {
                Dialect::Unary => replies.put_predict(out, &answer, &echo, &head),
                Dialect::Stream => replies.put_stream(out, &answer, &echo, &head, &mut scratch),
                Dialect::Infer(raw) => replies.put_infer(out, &answer, &echo, raw),
            });
            if dialect == Dialect::Stream {
                Io::done(conn, house, place.stream, *handle);
            } else {
                if let Some(stream) = streams.open.get_mut(&place.stream) {
                    stream.handle = 0;
                }
                streams.end(place.stream, Ending::Ok);
            }
            self.soil(place.token);
        }
    }

    /// One message of a stream is answered: there is room for another.
    fn done(conn: &mut Conn, house: &mut House, id: i32, handle: u64) {
        let streams = &mut conn.streams;
        if let Some(stream) = streams.open.get_mut(&id) {
            if let Some(at) = stream.handles.iter().position(|held| *held == handle) {
                stream.handles.swap_remove(at);
            }
            let idle = stream.handles.is_empty();
            let more = !stream.body.is_empty();
            if idle {
                streams.end_if_idle(id);
            }
            let mut seat = Seat {
                streams,
                house,
            };
            if more {
                seat.pump(id);
            } else if idle {
                seat.heard_all(id);
            }
        }
    }

    fn refuse(&mut self, handle: u64, refusal: &Refusal) {
        let Some(Route {
            place,
            dialect,
            echo,
            ..
        }) = self.house.take_route(handle)
        else {
            return;
        };
        self.house.leave(handle);
        let Some((conn, house)) = self.pair(place.token) else {
            return;
        };
        if dialect == Dialect::Stream {
            conn.streams.push(place.stream, |out| crate::reply::put_status(out, &echo, refusal));
            Io::done(conn, house, place.stream, handle);
        } else {
            if let Some(stream) = conn.streams.open.get_mut(&place.stream) {
                stream.handle = 0;
            }
            conn.streams.refuse(place.stream, refusal);
        }
        self.soil(place.token);
    }
}

fn ending(status: u32, words: &str, mut trailing: Fields) -> Ending {
    if status == code::OK && trailing.is_empty() {
        return Ending::Ok;
    }
    let mut fields = grpc::trailers(&Refusal::new(status, words));
    fields.append(&mut trailing);
    Ending::With(fields)
}

/// `age_ns` give or take a tenth, so that clients do not all come back at once.
fn jittered(age_ns: i64, token: u64) -> i64 {
    let drawn = (token >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    age_ns + age_ns / 10 * (drawn as i64 - (1 << 23)) / (1 << 23)
}
