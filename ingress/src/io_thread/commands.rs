//! The I/O thread executes Python's commands.

use crate::calls::callers::{Authorization, CallerNumber, Callers, TokenDigest};
use crate::calls::refusal::{code, Refusal};
use crate::calls::reply::{put_status, Replies};
use crate::http2::accept::Listeners;
use crate::http2::conn::Conn;
use crate::http2::grpc;
use crate::http2::service::Service;
use crate::http2::stream::{Method, StreamEnd};
use crate::http2::stream_events::StreamEvents;
use crate::io_thread::io::Io;
use crate::io_thread::server_state::{ReplyFormat, ReplyRoute, ServerState};
use crate::io_thread::shared::Command;
use crate::sys::nghttp2::Fields;

impl Io {
    /// Execute one command.
    pub(super) fn execute(&mut self, command: Command) {
        match command {
            // Models and listeners.
            Command::Configure(shapes) => {
                if let Some(callers) = self.server.callers.as_mut() {
                    callers.set_shapes(&shapes);
                }
                self.server.shapes = shapes;
                self.server.shared.with_queue(|queue| queue.remove_empty_queues());
            }
            Command::SetCallers(directory) => {
                let callers = self.server.callers.get_or_insert_with(Callers::default);
                callers.replace(directory, &self.server.shapes);
            }
            Command::TokenVerified(key, caller, expires_ns) => {
                self.token_verified(key, caller, expires_ns);
            }
            Command::Listen(listener) => self.listen(listener),
            Command::CloseListeners => self.close_listeners(),
            // Calls that were decoded here.
            Command::Answer(replies) => {
                let rows = replies.row_offsets.last().copied().unwrap_or(0);
                let now_ns = self.server.now_ns;
                self.server.shared.with_queue(|queue| {
                    queue.admission.rate.answered(u64::from(rows), now_ns);
                });
                self.answer(&replies);
            }
            Command::Refuse(handles, refusal) => {
                for handle in handles {
                    self.refuse(handle, &refusal);
                }
            }
            // Raw calls.
            Command::RequestMessage(raw_call) => {
                self.with_raw_call(raw_call, |conn, server, id| {
                    if let Some(stream) = conn.streams.open.get_mut(&id) {
                        stream.messages_wanted += 1;
                        if stream.method == Some(Method::RawStream) {
                            let streams = &mut conn.streams;
                            let mut events = StreamEvents {
                                streams,
                                server,
                            };
                            events.take_messages(id);
                        }
                    }
                })
            }
            Command::SetInitialMetadata(raw_call, initial_metadata) => {
                self.with_raw_call(raw_call, |conn, _, id| {
                    if let Some(stream) = conn.streams.open.get_mut(&id) {
                        stream.initial_metadata = initial_metadata;
                    }
                });
            }
            Command::SendMessage(raw_call, message) => {
                self.with_raw_call(raw_call, |conn, _, id| {
                    if let Some(stream) = conn.streams.open.get_mut(&id) {
                        stream.notify_when_sent = true;
                    }
                    conn.streams.send_message(id, |out| out.extend_from_slice(&message));
                })
            }
            Command::Finish(raw_call, code, message, trailing_metadata) => {
                self.with_raw_call(raw_call, |conn, server, id| {
                    server.raw_calls.remove(&raw_call);
                    conn.streams.end(id, stream_end(code, &message, trailing_metadata));
                });
            }
            // The store.
            Command::UseStore(connection) => self.use_store(connection),
            // The end of the worker.
            Command::Drain => self.drain(),
            Command::Stop => self.stop(),
        }
    }

    /// Go on with the calls that waited for this token. Calls with other tokens wait on.
    fn token_verified(&mut self, key: TokenDigest, caller: CallerNumber, expires_ns: i64) {
        for waiting in self.server.end_verifying(key, caller, expires_ns) {
            let Some((conn, server)) = self.conn_and_server(waiting.token) else {
                continue;
            };
            let streams = &mut conn.streams;
            let Some(stream) = streams.open.get(&waiting.stream) else {
                continue;
            };
            if stream.authorization != Authorization::Unverified(key) {
                server.verifying.push(waiting);
                continue;
            }
            let mut events = StreamEvents {
                streams,
                server,
            };
            events.resume(waiting.stream, caller);
            self.mark_dirty(waiting.token);
        }
    }

    /// Begin a graceful shutdown of every connection, and of those still to be accepted.
    fn drain(&mut self) {
        self.draining = true;
        for index in 0..self.conns.len() {
            if let Some(conn) = self.conns[index].as_deref_mut() {
                let token = conn.streams.token;
                conn.begin_shutdown(self.server.now_ns);
                self.mark_dirty(token);
            }
        }
    }

    /// Close every listener and connection. The loop ends after this turn.
    fn stop(&mut self) {
        self.listeners = Listeners::default();
        for index in 0..self.conns.len() {
            if let Some(conn) = self.conns[index].as_deref_mut() {
                conn.flush(&mut self.server);
                conn.close(&mut self.server);
                self.conns[index] = None;
            }
        }
        self.open_conns = 0;
        self.publish_open_conns();
        self.running = false;
    }

    /// Do something with the stream of a raw call, if the call is still open.
    fn with_raw_call(&mut self, raw_call: u64, act: impl FnOnce(&mut Conn, &mut ServerState, i32)) {
        let Some(stream) = self.server.raw_calls.get(&raw_call).copied() else {
            return;
        };
        if let Some((conn, server)) = self.conn_and_server(stream.token) {
            act(conn, server, stream.stream);
            self.mark_dirty(stream.token);
        }
    }

    /// Write the replies of one batch to their streams.
    pub(super) fn answer(&mut self, replies: &Replies) {
        // Take all routes before a slot is released: a reply may make room for a further message of
        // its stream, and that call would take a slot whose route is still needed.
        let server = &mut self.server;
        let routes: Vec<_> =
            replies.handles.iter().map(|handle| server.take_route(*handle)).collect();
        server.shared.with_queue(|queue| {
            for handle in &replies.handles {
                queue.release(*handle);
            }
        });
        // Write each reply in its call's format.
        let common_fields = replies.common_fields();
        let mut scratch = Vec::new();
        for (index, (handle, route)) in replies.handles.iter().zip(routes).enumerate() {
            // The caller may be gone.
            let Some(ReplyRoute {
                stream: stream_ref,
                format,
                echoed_id,
                ..
            }) = route
            else {
                continue;
            };
            let answer = replies.answer(index);
            let Some((conn, server)) = self.conn_and_server(stream_ref.token) else {
                continue;
            };
            let streams = &mut conn.streams;
            streams.send_message(stream_ref.stream, |out| match format {
                ReplyFormat::Predict => {
                    replies.put_predict(out, &answer, &echoed_id, &common_fields);
                }
                ReplyFormat::PredictStream => {
                    replies.put_stream(out, &answer, &echoed_id, &common_fields, &mut scratch);
                }
                ReplyFormat::Infer(raw) => replies.put_infer(out, &answer, &echoed_id, raw),
            });
            // End a unary call's stream; let a PredictStream go on.
            if format == ReplyFormat::PredictStream {
                Io::stream_call_done(conn, server, stream_ref.stream, *handle);
            } else {
                if let Some(stream) = streams.open.get_mut(&stream_ref.stream) {
                    stream.handle = 0;
                }
                streams.end(stream_ref.stream, StreamEnd::Ok);
            }
            self.mark_dirty(stream_ref.token);
        }
    }

    /// One message of a PredictStream is answered: take further messages, or end the stream.
    fn stream_call_done(conn: &mut Conn, server: &mut ServerState, id: i32, handle: u64) {
        let streams = &mut conn.streams;
        if let Some(stream) = streams.open.get_mut(&id) {
            if let Some(at) = stream.handles.iter().position(|inside| *inside == handle) {
                stream.handles.swap_remove(at);
            }
            let idle = stream.handles.is_empty();
            let more = !stream.incoming.is_empty();
            if idle {
                streams.end_when_idle(id);
            }
            let mut events = StreamEvents {
                streams,
                server,
            };
            if more {
                events.take_messages(id);
            } else if idle {
                events.end_of_input(id);
            }
        }
    }

    /// End one call with a refusal.
    fn refuse(&mut self, handle: u64, refusal: &Refusal) {
        let Some(ReplyRoute {
            stream: stream_ref,
            format,
            echoed_id,
            ..
        }) = self.server.take_route(handle)
        else {
            return;
        };
        self.server.release(handle);
        let Some((conn, server)) = self.conn_and_server(stream_ref.token) else {
            return;
        };
        let id = stream_ref.stream;
        if format == ReplyFormat::PredictStream {
            conn.streams.send_message(id, |out| put_status(out, &echoed_id, refusal));
            Io::stream_call_done(conn, server, id, handle);
        } else {
            if let Some(stream) = conn.streams.open.get_mut(&id) {
                stream.handle = 0;
            }
            conn.streams.refuse(id, refusal);
        }
        self.mark_dirty(stream_ref.token);
    }
}

/// How a raw call's stream ends.
fn stream_end(status: u32, message: &str, mut trailing_metadata: Fields) -> StreamEnd {
    if status == code::OK && trailing_metadata.is_empty() {
        return StreamEnd::Ok;
    }
    let mut trailers = grpc::trailers(&Refusal::new(status, message));
    trailers.append(&mut trailing_metadata);
    StreamEnd::Trailers(trailers)
}
