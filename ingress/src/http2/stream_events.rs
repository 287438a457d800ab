//! What each frame of a connection means for its calls.

use super::streams::{SessionAction, Streams, METADATA_OVERHEAD, REQUEST_ID_CHARS_MAX, UNSENT_MAX};
use crate::calls::reply::put_status;
use crate::calls::shape::{code, Refusal};
use crate::http2::grpc::{self, Encoding, PrefixedMessage};
use crate::http2::stream::{Method, Phase, Stream, StreamEnd};
use crate::io_thread::server_state::{ServerState, StreamRef, TimerKind};
use crate::io_thread::shared::Event;
use crate::sys::nghttp2::{code as http2, kind, BodyState, Events, ACK};

/// A connection's streams in the house they call at.
pub struct StreamEvents<'a> {
    /// The connection's.
    pub streams: &'a mut Streams,
    /// The house.
    pub server: &'a mut ServerState,
}

impl StreamEvents<'_> {
    fn place(&self, stream: i32) -> StreamRef {
        StreamRef {
            token: self.streams.token,
            stream,
        }
    }

    /// Refuse at the door, and count it.
    fn refuse(&mut self, id: i32, refusal: &Refusal) {
        self.server.refused("", refusal);
        self.streams.refuse(id, refusal);
    }

    /// One whole message.
    fn message(&mut self, id: i32, flag: u8, message: &[u8]) {
        let place = self.place(id);
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        let Some(method) = stream.method else {
            return;
        };
        if !method.streams() {
            stream.phase = Phase::InputDone;
        }
        let (arrived_ns, deadline_ns) = (stream.arrived_ns, stream.deadline_ns);
        let arrived_ns = if method.streams() { self.server.now_ns } else { arrived_ns };
        let unpacked;
        let message = if flag == 0 {
            message
        } else {
            let bytes_max = self.server.limits.message_bytes_max;
            match grpc::decompress(flag, message, stream.head.encoding, bytes_max) {
                Ok(plain) => {
                    unpacked = plain;
                    &unpacked
                }
                Err(refusal) => return self.refuse(id, &refusal),
            }
        };
        if matches!(method, Method::RawUnary | Method::RawStream) {
            stream.wanted = stream.wanted.saturating_sub(1);
            let raw = stream.raw;
            self.server.event(Event::Message(raw, message.to_vec()));
            return;
        }
        match self.server.admit(method, message, place, arrived_ns, deadline_ns) {
            Ok(handle) if method.streams() => stream.handles.push(handle),
            Ok(handle) => stream.handle = handle,
            Err((refusal, request_id)) if method.streams() => {
                let echoed: String = request_id.chars().take(REQUEST_ID_CHARS_MAX).collect();
                self.streams.push(id, |out| put_status(out, echoed.as_bytes(), &refusal));
            }
            Err((refusal, _)) => self.streams.refuse(id, &refusal),
        }
    }

    /// Take the messages of a stream of them, as far as there is room.
    pub fn pump(&mut self, id: i32) {
        loop {
            let Some(stream) = self.streams.open.get_mut(&id) else {
                return;
            };
            if stream.phase != Phase::Open {
                return;
            }
            let room = match stream.method {
                Some(Method::RawStream) => stream.wanted > 0,
                _ => {
                    !self.streams.leaving
                        && stream.handles.len() < self.server.limits.stream_calls_max
                        && stream.unsent() < UNSENT_MAX
                }
            };
            if !room {
                return;
            }
            let body = std::mem::take(&mut stream.body);
            let mut next = 0;
            let mut refusal = None;
            match grpc::read_prefixed(&body, self.server.limits.message_bytes_max) {
                PrefixedMessage::Whole(flag, message, behind) => {
                    self.message(id, flag, message);
                    next = behind;
                }
                PrefixedMessage::TooLong(length) => {
                    refusal = Some(grpc::too_long(length, self.server.limits.message_bytes_max));
                }
                PrefixedMessage::Partial => {}
            }
            if let Some(refusal) = refusal {
                return self.refuse(id, &refusal);
            }
            let Some(stream) = self.streams.open.get_mut(&id) else {
                return;
            };
            if stream.phase == Phase::Open {
                stream.body = body;
                stream.body.drain(..next);
            }
            if next == 0 || stream.body.is_empty() {
                let unconsumed = std::mem::take(&mut stream.unconsumed);
                if unconsumed > 0 {
                    self.streams.actions.push(SessionAction::Consume(id, unconsumed));
                }
                return self.input_ended(id);
            }
        }
    }

    /// What follows when a stream of messages has none left to take.
    pub fn input_ended(&mut self, id: i32) {
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        if stream.phase != Phase::Open || !stream.remote_closed {
            return;
        }
        match stream.method {
            Some(Method::PredictStream) => {
                let bytes_max = self.server.limits.message_bytes_max;
                let none = matches!(
                    grpc::read_prefixed(&stream.body, bytes_max),
                    PrefixedMessage::Partial
                );
                if stream.handles.is_empty() && none {
                    self.streams.end(id, StreamEnd::Ok);
                }
            }
            Some(Method::RawStream) => {
                stream.phase = Phase::InputDone;
                let raw = stream.raw;
                self.server.event(Event::Ended(raw));
            }
            _ => {}
        }
    }

    /// Begin a raw call: Python hears of it.
    fn open_raw(&mut self, id: i32) {
        let raw = self.server.open_raw(self.place(id));
        if let Some(stream) = self.streams.open.get_mut(&id) {
            stream.raw = raw;
            let path = std::mem::take(&mut stream.head.path);
            let metadata = std::mem::take(&mut stream.head.metadata);
            let deadline_ns = stream.deadline_ns.unwrap_or(0);
            self.server.event(Event::Opened(raw, path, metadata, deadline_ns));
        }
    }
}

fn no_message() -> Refusal {
    Refusal::invalid("the call ended without a message; send one")
}

impl Events for StreamEvents<'_> {
    fn begin(&mut self, id: i32) {
        self.streams.open.insert(id, Stream::new(self.server.now_ns));
    }

    fn header(&mut self, id: i32, name: &[u8], value: &[u8]) -> bool {
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return true;
        };
        let bytes_max = self.server.limits.metadata_bytes_max;
        stream.head.bytes += name.len() + value.len() + METADATA_OVERHEAD;
        if stream.head.bytes > bytes_max {
            return stream.head.bytes <= 2 * bytes_max;
        }
        if stream.phase != Phase::Head {
            return true;
        }
        let head = &mut stream.head;
        match name {
            b":path" => {
                stream.method = self.server.methods.get(value).copied();
                if matches!(stream.method, Some(Method::RawUnary | Method::RawStream)) {
                    head.path = String::from_utf8_lossy(value).into_owned();
                }
            }
            b":method" => head.posted = value == b"POST",
            b"content-type" => {
                let kind = value.strip_prefix(b"application/grpc");
                head.typed =
                    kind.is_some_and(|kind| matches!(kind.first(), None | Some(b'+' | b';')));
            }
            b"grpc-timeout" => head.timeout_ns = grpc::timeout_ns(value),
            b"grpc-encoding" => {
                head.encoding = match value {
                    b"identity" => Encoding::Identity,
                    b"gzip" => Encoding::Gzip,
                    _ => Encoding::Unknown,
                };
            }
            _ if !head.path.is_empty() && name[0] != b':' => {
                head.metadata.push((name.to_vec(), value.to_vec()));
            }
            _ => {}
        }
        true
    }

    fn headers_end(&mut self, id: i32, end_of_stream: bool) {
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        if stream.phase == Phase::Head {
            let bytes_max = self.server.limits.metadata_bytes_max;
            let bytes = stream.head.bytes;
            let (posted, typed) = (stream.head.posted, stream.head.typed);
            stream.remote_closed = end_of_stream;
            stream.phase = Phase::Open;
            stream.deadline_ns =
                stream.head.timeout_ns.map(|left_ns| stream.arrived_ns.saturating_add(left_ns));
            let (method, deadline_ns) = (stream.method, stream.deadline_ns);
            if bytes > bytes_max {
                let words = format!(
                    "the call's headers are {bytes} bytes; at most {bytes_max} are taken \
                     (metadata_bytes_max)"
                );
                return self.refuse(id, &Refusal::new(code::RESOURCE_EXHAUSTED, words));
            }
            if !posted {
                return self.streams.end_http(id, b"405");
            }
            if !typed {
                return self.streams.end_http(id, b"415");
            }
            let Some(method) = method else {
                let refusal = Refusal::new(code::UNIMPLEMENTED, "Method not found!");
                return self.streams.refuse(id, &refusal);
            };
            if stream.head.encoding == Encoding::Unknown {
                let words = "the call's grpc-encoding is unknown; send identity or gzip";
                let mut fields = grpc::trailers(&Refusal::new(code::UNIMPLEMENTED, words));
                fields.push((b"grpc-accept-encoding".to_vec(), b"identity,gzip".to_vec()));
                return self.streams.end(id, StreamEnd::With(fields));
            }
            if let (
                Some(deadline_ns),
                Method::PredictStream | Method::RawUnary | Method::RawStream,
            ) = (deadline_ns, method)
            {
                self.server.set_timer(deadline_ns, self.place(id), TimerKind::Deadline);
            }
            if method == Method::RawStream {
                self.open_raw(id);
            }
            if !method.streams() {
                self.streams.new_streams.push(id);
            }
        }
        if end_of_stream {
            self.end(id);
        }
    }

    fn data(&mut self, id: i32, bytes: &[u8]) -> usize {
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return bytes.len();
        };
        if stream.phase != Phase::Open {
            return bytes.len();
        }
        if stream.method.is_some_and(Method::streams) {
            stream.body.extend_from_slice(bytes);
            stream.unconsumed += bytes.len();
            self.pump(id);
            return 0;
        }
        let bytes_max = self.server.limits.message_bytes_max;
        let new_streams = !stream.body.is_empty();
        if new_streams {
            stream.body.extend_from_slice(bytes);
        }
        let body = if new_streams { std::mem::take(&mut stream.body) } else { Vec::new() };
        let whole = if new_streams { &body[..] } else { bytes };
        match grpc::read_prefixed(whole, bytes_max) {
            PrefixedMessage::Whole(flag, message, _) => {
                if stream.method == Some(Method::RawUnary) {
                    self.open_raw(id);
                }
                self.message(id, flag, message);
            }
            PrefixedMessage::TooLong(length) => self.refuse(id, &grpc::too_long(length, bytes_max)),
            PrefixedMessage::Partial if new_streams => stream.body = body,
            PrefixedMessage::Partial => stream.body.extend_from_slice(bytes),
        }
        bytes.len()
    }

    fn end(&mut self, id: i32) {
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        stream.remote_closed = true;
        if stream.phase != Phase::Open {
            return;
        }
        if stream.method.is_some_and(Method::streams) {
            self.pump(id);
            let left = self.streams.open.get(&id).is_some_and(|stream| {
                stream.body.is_empty() || stream.method == Some(Method::PredictStream)
            });
            if left {
                self.input_ended(id);
            }
            return;
        }
        self.refuse(id, &no_message());
    }

    fn closed(&mut self, id: i32, _code: u32) {
        let Some(stream) = self.streams.open.remove(&id) else {
            return;
        };
        if stream.handle != 0 {
            self.server.leave(stream.handle);
        }
        for handle in stream.handles {
            self.server.leave(handle);
        }
        if stream.raw != 0 && self.server.raw_calls.remove(&stream.raw).is_some() {
            self.server.event(Event::Gone(stream.raw));
        }
    }

    fn control(&mut self, frame: u8, flags: u8, _length: usize) {
        match (frame, flags & ACK) {
            (kind::SETTINGS, 0) => self.streams.settings_received = true,
            (kind::PING, ACK) => self.streams.ping_acked = true,
            _ => {}
        }
        let now_ns = self.server.now_ns;
        if let Some(why) = self.streams.frame_limits.frame(frame, flags, now_ns) {
            if !self.streams.flooded {
                self.streams.flooded = true;
                self.streams.actions.push(SessionAction::GoAway(http2::ENHANCE_YOUR_CALM, why));
            }
        }
    }

    fn body(&mut self, id: i32, into: &mut [u8]) -> (usize, BodyState) {
        self.streams.frame_limits.sent();
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return (0, BodyState::Wait);
        };
        let (count, then) = stream.read(into);
        if stream.notify_when_sent && stream.out.is_empty() {
            stream.notify_when_sent = false;
            let raw = stream.raw;
            self.server.event(Event::Flushed(raw));
        }
        let room = stream.out.is_empty() && stream.method == Some(Method::PredictStream);
        if room && !stream.body.is_empty() {
            self.pump(id);
        }
        (count, then)
    }
}
