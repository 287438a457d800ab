//! What each HTTP/2 event means for the calls of a connection.

use crate::calls::callers::{Authorization, CallerNumber, BYTES, CALLS};
use crate::calls::refusal::{code, Refusal};
use crate::calls::reply::put_status;
use crate::http2::bounds::client::Client;
use crate::http2::grpc::{self, Encoding, PrefixedMessage};
use crate::http2::request_head::check_field;
use crate::http2::service::{RawCallEvent, Service, StreamRef, TimerKind};
use crate::http2::stream::{HttpAnswer, Method, Phase, Stream, StreamEnd};
use crate::http2::streams::{SessionAction, Streams};
use crate::sys::nghttp2::{error_code, frame_type, BodyState, Events, ACK};

/// Characters of a refused message's request id that are sent back with its status.
const REQUEST_ID_CHARS_MAX: usize = 128;
/// Unsent bytes of one stream's replies. Above it, the stream's messages are not read.
const UNSENT_MAX: usize = 64 * 1024;
/// Capacity of a stream's empty buffer that is kept for further messages.
const EMPTY_BUFFER_MAX: usize = 8 * 1024;
/// What a person sees who calls without gRPC.
const NOT_GRPC: &str = "This port speaks gRPC: content-type application/grpc. gRPC-Web and JSON \
                        need a proxy that translates them, such as Envoy.\n";
/// Health is shown to everybody: load balancers have no identity.
const HEALTH_PATH: &str = "/grpc.health.v1.Health/";
const GRPC: &[u8] = b"application/grpc";
/// HTTP/2 counts every header field as this many bytes more than its name and value.
const FIELD_OVERHEAD: usize = 32;

/// Receives nghttp2's callbacks for one connection and turns them into calls of a service.
///
/// Unary calls: the first complete message is admitted, and everything after it is discarded.
/// Client-streaming calls: messages are admitted while the stream may have another call inside, and
/// the flow-control window is returned only as they are taken, so that a fast client has to wait.
/// Callbacks never touch the session. They note a `SessionAction` instead.
pub struct StreamEvents<'a, S: Service> {
    /// The connection's streams.
    pub streams: &'a mut Streams,
    /// The server that admits calls.
    pub server: &'a mut S,
}

impl<S: Service> StreamEvents<'_, S> {
    pub(super) fn stream_ref(&self, id: i32) -> StreamRef {
        StreamRef {
            token: self.streams.token,
            stream: id,
        }
    }

    /// End a stream with a refusal that concerns no model, and count it.
    pub(super) fn refuse(&mut self, id: i32, refusal: &Refusal) {
        self.server.count_refusal("", refusal);
        self.streams.refuse(id, refusal);
    }

    /// Handle one complete message. `flag` is the first byte of its gRPC prefix.
    fn message(&mut self, id: i32, flag: u8, message: &[u8]) {
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        let Some(method) = stream.method else {
            return;
        };
        if !method.is_client_streaming() {
            stream.phase = Phase::InputDone;
        }
        if flag != 0 {
            self.begin_inflation(id, flag, method, message);
        } else if method.is_raw() {
            self.raw_message(id, message.to_vec(), None);
        } else {
            self.scored_message(id, method, message);
        }
    }

    /// Decode and admit an uncompressed message of a scored method.
    pub(super) fn scored_message(&mut self, id: i32, method: Method, message: &[u8]) {
        let stream_ref = self.stream_ref(id);
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        // A stream's message arrives now; a unary call arrived with its headers.
        let streaming = method.is_client_streaming();
        let deadline_ns = stream.deadline_ns;
        let arrived_ns = if streaming { self.server.now_ns() } else { stream.arrived_ns };
        let caller = stream.caller;
        // The bytes of a PredictStream's message are paid when it is decoded.
        if !streaming {
            if let Err(refusal) = pay_bytes(self.server, caller, message.len()) {
                return self.streams.refuse(id, &refusal);
            }
        }
        match self.server.admit(method, message, stream_ref, caller, arrived_ns, deadline_ns) {
            Ok(handle) if streaming => stream.handles.push(handle),
            Ok(handle) => stream.handle = handle,
            Err((refusal, request_id)) => {
                self.refuse_message(id, method, &refusal, &request_id);
            }
        }
    }

    /// Answer one message with a refusal that is counted already. A PredictStream goes on after it.
    pub(super) fn refuse_message(
        &mut self,
        id: i32,
        method: Method,
        refusal: &Refusal,
        request_id: &str,
    ) {
        if method.is_client_streaming() {
            let echoed: String = request_id.chars().take(REQUEST_ID_CHARS_MAX).collect();
            let write = |out: &mut Vec<u8>| put_status(out, echoed.as_bytes(), refusal);
            self.streams.send_message(id, write);
        } else {
            self.streams.refuse(id, refusal);
        }
    }

    /// Take messages out of a client-streaming call's buffer while the stream may have more inside.
    pub fn take_messages(&mut self, id: i32) {
        self.take_complete_messages(id);
        self.hold_incoming(id);
    }

    fn take_complete_messages(&mut self, id: i32) {
        loop {
            let Some(stream) = self.streams.open.get_mut(&id) else {
                return;
            };
            if stream.phase != Phase::Open || stream.inflation.is_some() {
                return;
            }
            // Stop while the handler asks for nothing, or too much is unanswered or unsent.
            let has_room = match stream.method {
                Some(Method::RawStream) => stream.raw_call == 0 || stream.messages_wanted > 0,
                _ => {
                    !self.streams.going_away
                        && stream.handles.len() < self.server.limits().stream_calls_max
                        && stream.unsent() < UNSENT_MAX
                }
            };
            if !has_room {
                return;
            }
            // Handle the next message. The buffer is taken out meanwhile: `message` borrows from it.
            let incoming = std::mem::take(&mut stream.incoming);
            let mut taken = 0;
            let mut refusal = None;
            let bound = self.server.limits().message_bound(stream.method);
            match grpc::read_prefixed(&incoming, bound.bytes_max) {
                PrefixedMessage::Complete(flag, message, end) => {
                    self.message(id, flag, message);
                    taken = end;
                }
                PrefixedMessage::TooLong(length) => {
                    refusal = Some(grpc::too_long(length, bound));
                }
                PrefixedMessage::Partial => {}
            }
            if let Some(refusal) = refusal {
                return self.refuse(id, &refusal);
            }
            // Put the rest of the buffer back, unless the message ended the call.
            let Some(stream) = self.streams.open.get_mut(&id) else {
                return;
            };
            if stream.phase == Phase::Open {
                stream.incoming = incoming;
                stream.incoming.drain(..taken);
                // What is not counted is not held: an empty buffer of a large message goes.
                if stream.incoming.is_empty() && stream.incoming.capacity() > EMPTY_BUFFER_MAX {
                    stream.incoming = Vec::new();
                }
            }
            // No complete message is left: return the window, so that the client sends more.
            if taken == 0 || stream.incoming.is_empty() {
                let unconsumed = std::mem::take(&mut stream.unconsumed);
                if unconsumed > 0 {
                    self.streams.actions.push(SessionAction::Consume(id, unconsumed));
                }
                return self.end_of_input(id);
            }
        }
    }

    /// End a client-streaming call's input, if the client sent END_STREAM and no message is left.
    pub fn end_of_input(&mut self, id: i32) {
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        if stream.phase != Phase::Open || !stream.remote_closed || stream.inflation.is_some() {
            return;
        }
        match stream.method {
            // A PredictStream ends when all its messages are answered.
            Some(Method::PredictStream) => {
                let bytes_max = self.server.limits().message_bytes_max;
                let partial = grpc::read_prefixed(&stream.incoming, bytes_max);
                let no_message = matches!(partial, PrefixedMessage::Partial);
                if stream.handles.is_empty() && no_message {
                    self.streams.end(id, StreamEnd::Ok);
                }
            }
            Some(Method::RawStream) => {
                stream.phase = Phase::InputDone;
                let mut raw_call = stream.raw_call;
                // Its handler answers a call without a message, too.
                if raw_call == 0 {
                    if !self.open_raw_call(id) {
                        return;
                    }
                    raw_call = self.streams.open.get(&id).map_or(0, |stream| stream.raw_call);
                }
                self.server.raw_call_event(RawCallEvent::Ended(raw_call));
            }
            _ => {}
        }
    }

    /// Check a request's complete headers, and begin its call.
    fn begin_call(&mut self, id: i32) {
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        let deadline_ns = stream.headers.timeout_ns.map(|ns| stream.arrived_ns.saturating_add(ns));
        stream.deadline_ns = deadline_ns;
        // Refuse headers that are too large.
        let (bytes, bytes_max) = (stream.headers.bytes, self.server.limits().metadata_bytes_max);
        if bytes > bytes_max {
            let message = format!(
                "the call's headers are {bytes} bytes; at most {bytes_max} are taken \
                 (metadata_bytes_max)"
            );
            return self.refuse(id, &Refusal::new(code::RESOURCE_EXHAUSTED, message));
        }
        // Refuse what is not gRPC: Method Not Allowed, Unsupported Media Type.
        if !stream.headers.is_post {
            return self.answer_http(id, (b"405", "gRPC calls are POST requests.\n"));
        }
        if !stream.headers.is_grpc {
            return self.answer_http(id, (b"415", NOT_GRPC));
        }
        // Refuse unknown methods and encodings.
        if stream.method.is_none() {
            let refusal = Refusal::new(code::UNIMPLEMENTED, "Method not found!");
            return self.streams.refuse(id, &refusal);
        }
        if stream.headers.encoding == Encoding::Unknown {
            let message = "the call's grpc-encoding is unknown; send identity, deflate or gzip";
            let mut trailers = grpc::trailers(&Refusal::new(code::UNIMPLEMENTED, message));
            trailers.push((b"grpc-accept-encoding".to_vec(), b"identity,deflate,gzip".to_vec()));
            return self.streams.end(id, StreamEnd::Trailers(trailers));
        }
        // Ask who calls, before any byte of the message is read.
        match self.enter(id) {
            Ok(true) => self.open_call(id),
            Ok(false) => {}
            Err(refusal) => self.refuse(id, &refusal),
        }
    }

    /// Answer a request that is not gRPC once it has ended, or after the time for a message. An answer
    /// before that closes the stream, and the rest of the request comes for a closed stream.
    fn answer_http(&mut self, id: i32, answer: HttpAnswer) {
        if let Some(stream) = self.streams.open.get_mut(&id) {
            stream.http_answer = Some(answer);
            self.streams.new_streams.push(id);
        }
    }

    /// Begin a call whose caller is known.
    fn open_call(&mut self, id: i32) {
        let stream_ref = self.stream_ref(id);
        let Some(stream) = self.streams.open.get(&id) else {
            return;
        };
        let (deadline_ns, Some(method)) = (stream.deadline_ns, stream.method) else {
            return;
        };
        // Watch the deadline here, except for unary calls that the batch pipeline watches.
        if let (Some(deadline_ns), Method::PredictStream | Method::RawUnary | Method::RawStream) =
            (deadline_ns, method)
        {
            self.server.set_timer(deadline_ns, stream_ref, TimerKind::Deadline);
        }
        // Every call begins with its first message, and a PredictStream has time for it.
        if method != Method::PredictStream {
            self.streams.new_streams.push(id);
        }
    }
}

/// Callers with identities (calls/callers.rs).
impl<S: Service> StreamEvents<'_, S> {
    /// Note whose authorization header this is. A second one makes both invalid.
    fn note_authorization(&mut self, id: i32, value: &[u8]) {
        let now_ns = self.server.now_ns();
        let (Some(stream), Some(callers)) = (self.streams.open.get_mut(&id), self.server.callers())
        else {
            return;
        };
        let first = stream.authorization == Authorization::Absent;
        let said = callers.authorization(&mut self.streams.caller, value, now_ns);
        stream.authorization = if first { said } else { Authorization::Invalid };
        // Only Python can verify it: it gets the token, once.
        if let Authorization::Unverified(key) = stream.authorization {
            match callers.begin_verifying(key) {
                Ok(true) => self.server.raw_call_event(RawCallEvent::Verify(value.to_vec())),
                Ok(false) => {}
                Err(_) => stream.authorization = Authorization::Invalid,
            }
        }
    }

    /// Admit the call's caller. False: the call waits until its token is verified.
    fn enter(&mut self, id: i32) -> Result<bool, Refusal> {
        let (stream_ref, now_ns) = (self.stream_ref(id), self.server.now_ns());
        // Without callers there is nothing to look up.
        let Some(callers) = self.server.callers() else {
            return Ok(true);
        };
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return Ok(true);
        };
        if stream.headers.path.starts_with(HEALTH_PATH) {
            return Ok(true);
        }
        if matches!(stream.authorization, Authorization::Unverified(_)) {
            stream.verifying = true;
            self.server.wait_for_verdict(stream_ref);
            return Ok(false);
        }
        let conn = &mut self.streams.caller;
        let mut refused_caller = 0;
        let entered = callers.caller_of(conn, stream.authorization).and_then(|caller| {
            refused_caller = caller;
            callers.enter(conn, caller)?;
            stream.caller = caller;
            // A PredictStream pays for each message.
            if stream.method == Some(Method::PredictStream) {
                return Ok(true);
            }
            callers.take(caller, CALLS, 1.0, now_ns).map(|()| true)
        });
        if let Err(refusal) = &entered {
            callers.count_refusal(refused_caller, refusal.code);
        }
        entered
    }

    /// Go on with a call whose token is verified. `caller` is 0 if it is nobody's.
    pub fn resume(&mut self, id: i32, caller: CallerNumber) {
        let Some(stream) = self.streams.open.get_mut(&id).filter(|stream| stream.verifying) else {
            return;
        };
        stream.verifying = false;
        if stream.phase != Phase::Open {
            return;
        }
        stream.authorization = match caller {
            0 => Authorization::Invalid,
            caller => Authorization::Known(caller),
        };
        if let Err(refusal) = self.enter(id) {
            return self.refuse(id, &refusal);
        }
        self.open_call(id);
        // Handle what has arrived meanwhile.
        self.input(id, &[]);
        if self.streams.open.get(&id).is_some_and(|stream| stream.remote_closed) {
            self.end_of_request(id);
        }
    }

    /// Handle the end of a request whose bytes are all there.
    fn end_of_request(&mut self, id: i32) {
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        if stream.phase != Phase::Open || stream.verifying {
            return;
        }
        if let Some(answer) = stream.http_answer {
            return self.streams.end_http(id, answer);
        }
        if stream.method.is_some_and(Method::is_client_streaming) {
            self.take_messages(id);
            let may_end = self.streams.open.get(&id).is_some_and(|stream| {
                stream.incoming.is_empty() || stream.method == Some(Method::PredictStream)
            });
            if may_end {
                self.end_of_input(id);
            }
            return;
        }
        self.refuse(id, &Refusal::invalid("the call ended without a message; send one"));
    }

    /// Send GOAWAY and read nothing more: the peer has made a mistake that is its connection's.
    fn end_connection(&mut self, error_code: u32, debug: &'static str) {
        if !self.streams.flooded {
            self.streams.flooded = true;
            self.streams.actions.push(SessionAction::GoAway(error_code, debug));
        }
    }

    /// Discard what follows of a malformed request. Its stream is reset with the returned code.
    fn reset_malformed(&mut self, id: i32) -> Result<(), u32> {
        if let Some(stream) = self.streams.open.get_mut(&id) {
            stream.phase = Phase::InputDone;
        }
        Err(error_code::PROTOCOL_ERROR)
    }

    /// Handle bytes of a call's messages. Returns how many of them may be acknowledged.
    fn input(&mut self, id: i32, bytes: &[u8]) -> usize {
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return bytes.len();
        };
        if stream.phase != Phase::Open || stream.http_answer.is_some() {
            return bytes.len();
        }
        // Client-streaming calls: buffer, and return the window as messages are taken.
        if stream.method.is_some_and(Method::is_client_streaming) {
            stream.incoming.extend_from_slice(bytes);
            stream.unconsumed += bytes.len();
            if stream.verifying {
                self.hold_incoming(id);
            } else {
                self.take_messages(id);
            }
            return 0;
        }
        // Unary calls: most messages arrive in one DATA frame and are decoded without a copy.
        let bound = self.server.limits().message_bound(stream.method);
        let buffered = stream.verifying || !stream.incoming.is_empty();
        if buffered {
            stream.incoming.extend_from_slice(bytes);
        }
        let waits = stream.verifying;
        let incoming = if buffered { std::mem::take(&mut stream.incoming) } else { Vec::new() };
        match grpc::read_prefixed(if buffered { &incoming } else { bytes }, bound.bytes_max) {
            PrefixedMessage::Complete(flag, message, _) if !waits => {
                self.message(id, flag, message);
            }
            PrefixedMessage::TooLong(length) => {
                self.refuse(id, &grpc::too_long(length, bound));
            }
            // More than one message cannot gather here: the rest is discarded later.
            PrefixedMessage::Complete(_, _, end) => {
                stream.incoming = incoming;
                stream.incoming.truncate(end);
                self.hold_incoming(id);
            }
            PrefixedMessage::Partial if buffered => {
                stream.incoming = incoming;
                self.hold_incoming(id);
            }
            PrefixedMessage::Partial => {
                stream.incoming.extend_from_slice(bytes);
                self.hold_incoming(id);
            }
        }
        bytes.len()
    }
}

impl<S: Service> Events for StreamEvents<'_, S> {
    fn begin_frame(&mut self, frame: u8, id: i32) {
        if frame == frame_type::PRIORITY && id == 0 {
            self.end_connection(error_code::PROTOCOL_ERROR, "priority_of_no_stream");
        }
        if frame == frame_type::HEADERS && self.streams.was_skipped(id) {
            self.end_connection(error_code::PROTOCOL_ERROR, "stream_ids_go_back");
        }
        // A frame of a closed stream may have been on its way. Some of them are answered.
        let of_request = matches!(frame, frame_type::DATA | frame_type::HEADERS);
        let closed = id <= self.streams.newest_stream && !self.streams.open.contains_key(&id);
        if of_request && id > 0 && closed {
            let now_ns = self.server.now_ns();
            if self.streams.frame_limits.answers_late_frame(now_ns) {
                self.streams.late_resets.push(id);
            }
        }
    }

    fn begin_headers(&mut self, id: i32) {
        self.streams.begin_stream(id);
        self.streams.newest_stream_ns = self.server.now_ns();
        self.streams.open.insert(id, Stream::new(self.streams.newest_stream_ns));
    }

    fn header(&mut self, id: i32, name: &[u8], value: &[u8]) -> Result<(), u32> {
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return Ok(());
        };
        // Above the limit, fields are only counted. Above twice the limit, the stream is reset.
        let bytes_max = self.server.limits().metadata_bytes_max;
        stream.headers.bytes += name.len() + value.len() + FIELD_OVERHEAD;
        if stream.headers.bytes > bytes_max {
            let far_above = stream.headers.bytes > 2 * bytes_max;
            return if far_above { Err(error_code::ENHANCE_YOUR_CALM) } else { Ok(()) };
        }
        // Trailers of the client mean nothing.
        if stream.phase != Phase::Headers {
            return check_field(name, value).map_err(|_| error_code::PROTOCOL_ERROR);
        }
        let any_authority = matches!(self.streams.client, Client::User(_));
        if stream.head.field(name, value, any_authority).is_err() {
            return self.reset_malformed(id);
        }
        let value = value.trim_ascii();
        // Note what the call needs.
        let headers = &mut stream.headers;
        match name {
            b":path" => {
                stream.method = self.server.method(value);
                if matches!(stream.method, Some(Method::RawUnary | Method::RawStream)) {
                    headers.path = String::from_utf8_lossy(value).into_owned();
                }
            }
            b":method" => headers.is_post = value == b"POST",
            b"content-type" => {
                let (kind, suffix) = value.split_at(value.len().min(GRPC.len()));
                headers.is_grpc = kind.eq_ignore_ascii_case(GRPC)
                    && matches!(suffix.trim_ascii().first(), None | Some(b'+' | b';'));
            }
            b"grpc-timeout" => headers.timeout_ns = grpc::timeout_ns(value),
            b"grpc-encoding" => {
                headers.encoding = match value {
                    b"identity" => Encoding::Identity,
                    b"gzip" => Encoding::Gzip,
                    b"deflate" => Encoding::Deflate,
                    _ => Encoding::Unknown,
                };
            }
            b"authorization" if self.server.callers().is_some() => {
                self.note_authorization(id, value);
            }
            // `path` is set for raw calls only; their handlers may ask for any metadata.
            _ if !headers.path.is_empty() && name[0] != b':' => {
                headers.metadata.push((name.to_vec(), value.to_vec()));
            }
            _ => {}
        }
        Ok(())
    }

    fn end_headers(&mut self, id: i32, end_of_stream: bool) -> Result<(), u32> {
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return Ok(());
        };
        if stream.phase == Phase::Headers {
            if stream.head.end_of_fields().is_err() {
                return self.reset_malformed(id);
            }
            stream.remote_closed = end_of_stream;
            stream.phase = Phase::Open;
            self.begin_call(id);
        } else if !end_of_stream {
            // A second header block is the trailers, and they end the request.
            return self.reset_malformed(id);
        }
        if end_of_stream {
            self.end_stream(id)?;
        }
        Ok(())
    }

    fn data(&mut self, id: i32, bytes: &[u8]) -> Result<usize, u32> {
        if let Some(stream) = self.streams.open.get_mut(&id) {
            if stream.head.body(bytes.len()).is_err() {
                return self.reset_malformed(id).map(|()| 0);
            }
        }
        Ok(self.input(id, bytes))
    }

    fn end_stream(&mut self, id: i32) -> Result<(), u32> {
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return Ok(());
        };
        if stream.head.end_of_body().is_err() {
            return self.reset_malformed(id);
        }
        stream.remote_closed = true;
        self.end_of_request(id);
        Ok(())
    }
    fn stream_closed(&mut self, id: i32, _code: u32) {
        let Some(stream) = self.streams.open.remove(&id) else {
            return;
        };
        if stream.handle != 0 {
            self.server.release(stream.handle);
        }
        for handle in stream.handles {
            self.server.release(handle);
        }
        if stream.raw_call != 0 {
            self.server.close_raw_call(stream.raw_call);
        }
        if stream.caller != 0 {
            if let Some(callers) = self.server.callers() {
                callers.leave(stream.caller);
            }
        }
    }

    fn control_frame(&mut self, frame: u8, flags: u8, _length: usize) {
        match (frame, flags & ACK) {
            (frame_type::SETTINGS, 0) => self.streams.settings_received = true,
            (frame_type::PING, ACK) => self.streams.ping_acked = true,
            _ => {}
        }
        let now_ns = self.server.now_ns();
        if let Some(debug) = self.streams.frame_limits.exceeded(frame, flags, now_ns) {
            self.end_connection(error_code::ENHANCE_YOUR_CALM, debug);
        }
    }

    fn read_body(&mut self, id: i32, into: &mut [u8]) -> (usize, BodyState) {
        self.streams.frame_limits.sent();
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return (0, BodyState::Deferred);
        };
        let (count, state) = stream.read(into);
        if stream.notify_when_sent && stream.outgoing.is_empty() {
            stream.notify_when_sent = false;
            let raw_call = stream.raw_call;
            self.server.raw_call_event(RawCallEvent::Flushed(raw_call));
        }
        // Replies have left: messages that waited for that may be taken now.
        let sent_all = stream.outgoing.is_empty() && stream.method == Some(Method::PredictStream);
        if sent_all && !stream.incoming.is_empty() {
            self.take_messages(id);
        }
        (count, state)
    }
}

/// Take the bytes of a message from the quota of a caller. Caller 0 has no quota.
pub(super) fn pay_bytes<S: Service>(
    server: &mut S,
    caller: CallerNumber,
    bytes: usize,
) -> Result<(), Refusal> {
    let now_ns = server.now_ns();
    let Some(callers) = server.callers().filter(|_| caller != 0) else {
        return Ok(());
    };
    let paid = callers.take(caller, BYTES, bytes as f64, now_ns);
    if let Err(refusal) = &paid {
        callers.count_refusal(caller, refusal.code);
        server.count_refusal("", refusal);
    }
    paid
}
