//! All streams of one connection, and the actions that they ask of its HTTP/2 session.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::calls::callers::ConnCaller;
use crate::calls::refusal::{code, Refusal};
use crate::http2::bounds::budget::Budgets;
use crate::http2::bounds::client::Client;
use crate::http2::frame_limits::FrameLimits;
use crate::http2::grpc;
use crate::http2::stream::{HttpAnswer, Method, Phase, Stream, StreamEnd};
use crate::http2::stream_holds::Holds;
use crate::sys::nghttp2::{Fields, Session};

/// Something to be done with the session after its callbacks have returned. nghttp2 does not allow
/// most of its functions inside a callback.
pub enum SessionAction {
    /// Submit response headers. The body follows through `Events::read_body`.
    Respond(i32),
    /// Submit headers and trailers as one block, without a body.
    RespondWithoutBody(i32, &'static [u8], Fields),
    /// Submit the headers of a text. It follows through `Events::read_body`.
    RespondWithText(i32, &'static [u8]),
    /// Read a deferred body again: it has grown, or it ends.
    Resume(i32),
    /// Return so many bytes to the stream's flow-control window.
    Consume(i32, usize),
    /// Send GOAWAY with this error code and debug data.
    GoAway(u32, &'static str),
}

/// Gaps between stream identifiers that are kept. A usual client leaves none.
const SKIPPED_GAPS_MAX: usize = 16;

/// A hasher for stream identifiers. They are distinct already, so one multiplication is enough.
#[derive(Default)]
pub struct StreamIdHasher(u64);

impl Hasher for StreamIdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_i32(i32::from(*byte));
        }
    }
    fn write_i32(&mut self, number: i32) {
        self.0 = (self.0 ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// The state of a connection without its socket and its session.
///
/// Callbacks change streams and note actions; `apply` carries the actions out.
pub struct Streams {
    /// The connection's token.
    pub token: u64,
    /// The client that the connection belongs to.
    pub client: Client,
    /// Bytes that its messages may have inside.
    pub budgets: Budgets,
    /// What is known of the connection's caller.
    pub caller: ConnCaller,
    /// Open streams by identifier.
    pub open: HashMap<i32, Stream, BuildHasherDefault<StreamIdHasher>>,
    /// Actions to be carried out by `apply`, in order.
    pub actions: Vec<SessionAction>,
    /// Counts the peer's control frames.
    pub frame_limits: FrameLimits,
    /// The peer's first SETTINGS frame was received.
    pub settings_received: bool,
    /// The peer acknowledged the last PING.
    pub ping_acked: bool,
    /// The peer exceeded a frame limit. Its GOAWAY is noted, and nothing more is read.
    pub flooded: bool,
    /// GOAWAY was sent because the connection is to be closed. PredictStreams end when idle.
    pub going_away: bool,
    /// The newest stream, and the monotonic time at which it began.
    pub newest_stream: i32,
    pub newest_stream_ns: i64,
    /// Identifiers that the client skipped, as first and last of a gap. It may not use them later.
    skipped: Vec<(i32, i32)>,
    /// Closed streams for which a frame has come, to be told that they are closed.
    pub late_resets: Vec<i32>,
    /// Streams of one message that began since the connection last looked at this list.
    pub new_streams: Vec<i32>,
    /// Streams that were ended here before the client sent END_STREAM.
    pub half_closed_local: Vec<i32>,
}

impl Streams {
    /// The streams of a new connection.
    pub fn new(token: u64, client: Client, budgets: Budgets, resets_s_max: i64) -> Streams {
        Streams {
            token,
            client,
            budgets,
            caller: ConnCaller::default(),
            open: HashMap::default(),
            actions: Vec::new(),
            frame_limits: FrameLimits::new(resets_s_max),
            settings_received: false,
            ping_acked: false,
            flooded: false,
            going_away: false,
            newest_stream: 0,
            newest_stream_ns: 0,
            skipped: Vec::new(),
            late_resets: Vec::new(),
            new_streams: Vec::new(),
            half_closed_local: Vec::new(),
        }
    }

    /// Note that a stream begins.
    pub fn begin_stream(&mut self, id: i32) {
        let gap = (self.newest_stream + 1, id - 1);
        if gap.1 - gap.0 > 1 && self.skipped.len() < SKIPPED_GAPS_MAX {
            self.skipped.push(gap);
        }
        self.newest_stream = id;
    }

    /// Whether the client skipped this identifier.
    pub fn was_skipped(&self, id: i32) -> bool {
        self.skipped.iter().any(|(first, last)| (*first..=*last).contains(&id))
    }

    /// Carry out the actions that callbacks noted.
    pub fn apply(&mut self, session: &mut Session) {
        for action in std::mem::take(&mut self.actions) {
            match action {
                SessionAction::Respond(id) => {
                    let Some(stream) = self.open.get_mut(&id) else {
                        continue;
                    };
                    session.respond(id, &std::mem::take(&mut stream.initial_metadata));
                }
                SessionAction::RespondWithoutBody(id, status, fields) => {
                    self.frame_limits.sent();
                    session.respond_without_body(id, status, &fields);
                }
                SessionAction::RespondWithText(id, status) => {
                    self.frame_limits.sent();
                    session.respond_with_text(id, status);
                }
                SessionAction::Resume(id) => session.resume(id),
                SessionAction::Consume(id, bytes) => session.consume(id, bytes),
                SessionAction::GoAway(code, debug) => session.goaway(code, debug.as_bytes()),
            }
        }
    }

    /// Append a message, written by `write`, to a stream's outgoing messages.
    pub fn send_message(&mut self, id: i32, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(stream) = self.open.get_mut(&id) else {
            return;
        };
        let at = grpc::begin_message(&mut stream.outgoing);
        write(&mut stream.outgoing);
        grpc::finish_message(&mut stream.outgoing, at);
        schedule_send(stream, id, &mut self.actions);
    }

    /// End a stream once its outgoing messages are sent.
    pub fn end(&mut self, id: i32, end: StreamEnd) {
        let Some(stream) = self.open.get_mut(&id) else {
            return;
        };
        if !stream.remote_closed {
            self.half_closed_local.push(id);
        }
        stream.phase = Phase::InputDone;
        stream.incoming = Vec::new();
        stream.inflation = None;
        stream.holds = Holds::default();
        match end {
            // Nothing was sent yet: headers and trailers go out as one block (Trailers-Only).
            StreamEnd::Trailers(mut trailers)
                if !stream.headers_submitted && stream.outgoing.is_empty() =>
            {
                let mut fields = std::mem::take(&mut stream.initial_metadata);
                fields.append(&mut trailers);
                stream.headers_submitted = true;
                self.actions.push(SessionAction::RespondWithoutBody(id, b"200", fields));
            }
            end => {
                stream.end = Some(end);
                schedule_send(stream, id, &mut self.actions);
            }
        }
    }

    /// End a stream with a refusal as its status.
    pub fn refuse(&mut self, id: i32, refusal: &Refusal) {
        self.end(id, StreamEnd::Trailers(grpc::trailers(refusal)));
    }

    /// End a PredictStream of a connection that is going away, once all its calls are answered.
    pub fn end_when_idle(&mut self, id: i32) {
        let idle = self.open.get(&id).is_some_and(|stream| {
            stream.method == Some(Method::PredictStream)
                && stream.phase == Phase::Open
                && stream.handles.is_empty()
                && stream.inflation.is_none()
        });
        if self.going_away && idle {
            let message = "this worker leaves; what it had taken is answered; open the stream \
                           again and send the rest";
            self.refuse(
                id,
                &Refusal {
                    code: code::UNAVAILABLE,
                    message: message.to_owned(),
                    pushback_ms: Some(0),
                },
            );
        }
    }

    /// End a stream that is not gRPC with an HTTP status and words for a person.
    pub fn end_http(&mut self, id: i32, (status, words): HttpAnswer) {
        if let Some(stream) = self.open.get_mut(&id) {
            stream.phase = Phase::InputDone;
            stream.headers_submitted = true;
            stream.outgoing = words.as_bytes().to_vec();
            stream.end = Some(StreamEnd::Plain);
            self.half_closed_local.push(id);
            self.actions.push(SessionAction::RespondWithText(id, status));
        }
    }
}

/// Have the session read a stream's outgoing messages and its end.
fn schedule_send(stream: &mut Stream, id: i32, actions: &mut Vec<SessionAction>) {
    if !stream.headers_submitted {
        stream.headers_submitted = true;
        actions.push(SessionAction::Respond(id));
    } else if stream.deferred {
        stream.deferred = false;
        actions.push(SessionAction::Resume(id));
    }
}
