//! What Python says, carried out.

use super::io::Io;
use crate::calls::reply::Replies;
use crate::calls::shape::{code, Refusal};
use crate::http2::conn::Conn;
use crate::http2::grpc;
use crate::http2::stream::{Ending, Method};
use crate::http2::stream_events::Seat;
use crate::io_thread::server_state::{Dialect, House, Route};
use crate::io_thread::shared::Command;
use crate::sys::nghttp2::Fields;

impl Io {
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Configure(shapes) => {
                self.house.shapes = shapes;
                self.house.bridge.with_intake(|intake| intake.forget_empty());
            }
            Command::Listen(listener) => self.listen(listener),
            Command::Leave => self.leave_ports(),
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
            conn.streams
                .push(place.stream, |out| crate::calls::reply::put_status(out, &echo, refusal));
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
