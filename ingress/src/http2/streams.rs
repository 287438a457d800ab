//! A connection's streams: what they hold, and what is to be done about them.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::calls::shape::{code, Refusal};
use crate::http2::frame_limits::FrameLimits;
use crate::http2::grpc;
use crate::http2::stream::{Method, Phase, Stream, StreamEnd};
use crate::sys::nghttp2::{Fields, Session};

/// Characters of a refused message's request id that go back with its status.
pub(super) const REQUEST_ID_CHARS_MAX: usize = 128;
/// Unsent replies of one stream; past that its messages are not read.
pub(super) const UNSENT_MAX: usize = 64 * 1024;
pub(super) const METADATA_OVERHEAD: usize = 32;

/// What is to be done with the session once its callbacks are through.
pub enum SessionAction {
    /// Headers, then the body.
    Respond(i32),
    /// Headers and trailers in one.
    Only(i32, &'static [u8], Fields),
    /// The body has grown, or ends.
    Resume(i32),
    /// Give so much of a window back.
    Consume(i32, usize),
    /// Refuse further streams.
    GoAway(u32, &'static str),
}

/// A hash for stream numbers: they are distinct already.
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

/// Everything of a connection but its socket and session.
pub struct Streams {
    /// The connection.
    pub token: u64,
    /// Open streams.
    pub open: HashMap<i32, Stream, BuildHasherDefault<StreamIdHasher>>,
    /// For the session.
    pub actions: Vec<SessionAction>,
    /// Its account of frames.
    pub frame_limits: FrameLimits,
    /// The peer's first SETTINGS came.
    pub settings_received: bool,
    /// An answer to our ping came.
    pub ping_acked: bool,
    /// A GOAWAY for a flood is on its way.
    pub flooded: bool,
    /// PredictStreams are to end: the connection leaves.
    pub leaving: bool,
    /// Streams begun since they were last looked at.
    pub new_streams: Vec<i32>,
    /// Streams we have ended while the peer had not.
    pub half_closed_local: Vec<i32>,
}

impl Streams {
    /// A new connection's.
    pub fn new(token: u64) -> Streams {
        Streams {
            token,
            open: HashMap::default(),
            actions: Vec::new(),
            frame_limits: FrameLimits::default(),
            settings_received: false,
            ping_acked: false,
            flooded: false,
            leaving: false,
            new_streams: Vec::new(),
            half_closed_local: Vec::new(),
        }
    }

    /// Do with the session what callbacks could not.
    pub fn act(&mut self, session: &mut Session) {
        for actions in std::mem::take(&mut self.actions) {
            match actions {
                SessionAction::Respond(id) => {
                    let Some(stream) = self.open.get_mut(&id) else {
                        continue;
                    };
                    session.respond(id, &std::mem::take(&mut stream.initial));
                }
                SessionAction::Only(id, status, fields) => {
                    session.respond_without_body(id, status, &fields)
                }
                SessionAction::Resume(id) => session.resume(id),
                SessionAction::Consume(id, bytes) => session.consume(id, bytes),
                SessionAction::GoAway(code, why) => session.goaway(code, why.as_bytes()),
            }
        }
    }

    /// Add to a stream's messages.
    pub fn push(&mut self, id: i32, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(stream) = self.open.get_mut(&id) else {
            return;
        };
        let at = grpc::begin(&mut stream.out);
        write(&mut stream.out);
        grpc::finish(&mut stream.out, at);
        schedule_send(stream, id, &mut self.actions);
    }

    /// End a stream with what is said.
    pub fn end(&mut self, id: i32, ending: StreamEnd) {
        let Some(stream) = self.open.get_mut(&id) else {
            return;
        };
        if !stream.remote_closed {
            self.half_closed_local.push(id);
        }
        stream.phase = Phase::InputDone;
        stream.body = Vec::new();
        match ending {
            StreamEnd::With(mut fields) if !stream.headers_submitted && stream.out.is_empty() => {
                let mut every = std::mem::take(&mut stream.initial);
                every.append(&mut fields);
                stream.headers_submitted = true;
                self.actions.push(SessionAction::Only(id, b"200", every));
            }
            ending => {
                stream.ending = Some(ending);
                schedule_send(stream, id, &mut self.actions);
            }
        }
    }

    /// End a stream with a refusal.
    pub fn refuse(&mut self, id: i32, refusal: &Refusal) {
        self.end(id, StreamEnd::With(grpc::trailers(refusal)));
    }

    /// A stream of messages on a connection that leaves ends once all it took is answered.
    pub fn end_when_idle(&mut self, id: i32) {
        let idle = self.open.get(&id).is_some_and(|stream| {
            stream.method == Some(Method::PredictStream)
                && stream.phase == Phase::Open
                && stream.handles.is_empty()
        });
        if self.leaving && idle {
            let words = "this worker leaves; what it had taken is answered; open the stream again \
                         and send the rest";
            self.refuse(
                id,
                &Refusal {
                    code: code::UNAVAILABLE,
                    words: words.to_owned(),
                    pushback_ms: Some(0),
                },
            );
        }
    }

    pub(super) fn end_http(&mut self, id: i32, status: &'static [u8]) {
        if let Some(stream) = self.open.get_mut(&id) {
            stream.phase = Phase::InputDone;
            stream.headers_submitted = true;
            self.half_closed_local.push(id);
            self.actions.push(SessionAction::Only(id, status, Vec::new()));
        }
    }
}

/// Have the session look at a stream's `out` and `ending`.
fn schedule_send(stream: &mut Stream, id: i32, actions: &mut Vec<SessionAction>) {
    if !stream.headers_submitted {
        stream.headers_submitted = true;
        actions.push(SessionAction::Respond(id));
    } else if stream.deferred {
        stream.deferred = false;
        actions.push(SessionAction::Resume(id));
    }
}
