//! What Python says, carried out.

use super::io::Io;
use crate::calls::reply::Replies;
use crate::calls::shape::{code, Refusal};
use crate::http2::conn::Conn;
use crate::http2::grpc;
use crate::http2::stream::{Method, StreamEnd};
use crate::http2::stream_events::StreamEvents;
use crate::io_thread::server_state::{ReplyFormat, ReplyRoute, ServerState};
use crate::io_thread::shared::Command;
use crate::sys::nghttp2::Fields;

impl Io {
    pub(super) fn execute(&mut self, command: Command) {
        match command {
            Command::Configure(shapes) => {
                self.server.shapes = shapes;
                self.server.shared.with_queue(|queue| queue.remove_empty_queues());
            }
            Command::Listen(listener) => self.listen(listener),
            Command::Leave => self.close_listeners(),
            Command::Answer(replies) => self.answer(&replies),
            Command::Refuse(handles, refusal) => {
                for handle in handles {
                    self.refuse(handle, &refusal);
                }
            }
            Command::More(raw) => self.with_raw(raw, |conn, server, id| {
                if let Some(stream) = conn.streams.open.get_mut(&id) {
                    stream.wanted += 1;
                    if stream.method == Some(Method::RawStream) {
                        let streams = &mut conn.streams;
                        StreamEvents {
                            streams,
                            server,
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
                    stream.notify_when_sent = true;
                }
                conn.streams.push(id, |out| out.extend_from_slice(&message));
            }),
            Command::Finish(raw, status, words, trailing) => {
                self.with_raw(raw, |conn, server, id| {
                    server.raw_calls.remove(&raw);
                    conn.streams.end(id, ending(status, &words, trailing));
                });
            }
            Command::Drain => {
                self.draining = true;
                for index in 0..self.conns.len() {
                    if let Some(conn) = self.conns[index].as_deref_mut() {
                        let token = conn.streams.token;
                        conn.leave(self.server.now_ns);
                        self.mark_dirty(token);
                    }
                }
            }
            Command::Stop => {
                self.listeners.clear();
                for index in 0..self.conns.len() {
                    if let Some(conn) = self.conns[index].as_deref_mut() {
                        conn.flush(&mut self.server);
                        conn.close(&mut self.server);
                        self.conns[index] = None;
                    }
                }
                self.open = 0;
                self.count();
                self.running = false;
            }
        }
    }

    fn with_raw(&mut self, raw: u64, act: impl FnOnce(&mut Conn, &mut ServerState, i32)) {
        let Some(place) = self.server.raw_calls.get(&raw).copied() else {
            return;
        };
        if let Some((conn, server)) = self.pair(place.token) {
            act(conn, server, place.stream);
            self.mark_dirty(place.token);
        }
    }

    fn answer(&mut self, replies: &Replies) {
        let rows = replies.row_offsets.last().copied().unwrap_or(0);
        let now_ns = self.server.now_ns;
        // All routes before any slot is free: an answer makes room for calls that take those slots.
        let server = &mut self.server;
        let routes: Vec<_> =
            replies.handles.iter().map(|handle| server.take_route(*handle)).collect();
        server.shared.with_queue(|queue| {
            queue.admission.rate.answered(u64::from(rows), now_ns);
            for handle in &replies.handles {
                queue.leave(*handle);
            }
        });
        let head = replies.head();
        let mut scratch = Vec::new();
        for (index, (handle, route)) in replies.handles.iter().zip(routes).enumerate() {
            let Some(ReplyRoute {
                place,
                dialect,
                echo,
                ..
            }) = route
            else {
                continue;
            };
            let answer = replies.answer(index);
            let Some((conn, server)) = self.pair(place.token) else {
                continue;
            };
            let streams = &mut conn.streams;
            streams.push(place.stream, |out| match dialect {
                ReplyFormat::Unary => replies.put_predict(out, &answer, &echo, &head),
                ReplyFormat::Stream => replies.put_stream(out, &answer, &echo, &head, &mut scratch),
                ReplyFormat::Infer(raw) => replies.put_infer(out, &answer, &echo, raw),
            });
            if dialect == ReplyFormat::Stream {
                Io::done(conn, server, place.stream, *handle);
            } else {
                if let Some(stream) = streams.open.get_mut(&place.stream) {
                    stream.handle = 0;
                }
                streams.end(place.stream, StreamEnd::Ok);
            }
            self.mark_dirty(place.token);
        }
    }

    /// One message of a stream is answered: there is room for another.
    fn done(conn: &mut Conn, server: &mut ServerState, id: i32, handle: u64) {
        let streams = &mut conn.streams;
        if let Some(stream) = streams.open.get_mut(&id) {
            if let Some(at) = stream.handles.iter().position(|held| *held == handle) {
                stream.handles.swap_remove(at);
            }
            let idle = stream.handles.is_empty();
            let more = !stream.body.is_empty();
            if idle {
                streams.end_when_idle(id);
            }
            let mut events = StreamEvents {
                streams,
                server,
            };
            if more {
                events.pump(id);
            } else if idle {
                events.input_ended(id);
            }
        }
    }

    fn refuse(&mut self, handle: u64, refusal: &Refusal) {
        let Some(ReplyRoute {
            place,
            dialect,
            echo,
            ..
        }) = self.server.take_route(handle)
        else {
            return;
        };
        self.server.leave(handle);
        let Some((conn, server)) = self.pair(place.token) else {
            return;
        };
        if dialect == ReplyFormat::Stream {
            conn.streams
                .push(place.stream, |out| crate::calls::reply::put_status(out, &echo, refusal));
            Io::done(conn, server, place.stream, handle);
        } else {
            if let Some(stream) = conn.streams.open.get_mut(&place.stream) {
                stream.handle = 0;
            }
            conn.streams.refuse(place.stream, refusal);
        }
        self.mark_dirty(place.token);
    }
}

fn ending(status: u32, words: &str, mut trailing: Fields) -> StreamEnd {
    if status == code::OK && trailing.is_empty() {
        return StreamEnd::Ok;
    }
    let mut fields = grpc::trailers(&Refusal::new(status, words));
    fields.append(&mut trailing);
    StreamEnd::With(fields)
}
