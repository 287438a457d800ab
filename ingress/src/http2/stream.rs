//! One HTTP/2 stream: what came in, what goes out, and what of it is inside.

use crate::http2::grpc::Encoding;
use crate::sys::nghttp2::{BodyState, Fields};

/// Who serves a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// Decoded here, one message.
    Predict,
    /// Decoded here, many messages.
    PredictStream,
    /// Decoded here, one message in the Open Inference Protocol.
    Infer,
    /// Passed to Python as bytes, one message.
    RawUnary,
    /// Passed to Python as bytes, many messages.
    RawStream,
}

impl Method {
    /// Whether more than one message may come.
    pub fn streams(self) -> bool {
        matches!(self, Method::PredictStream | Method::RawStream)
    }
}

/// How far a stream is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its headers are being read.
    Head,
    /// Messages are taken.
    Open,
    /// What comes is thrown away: its one message is here, or it is over.
    InputDone,
}

/// How a stream ends.
pub enum StreamEnd {
    /// Status 0, nothing more.
    Ok,
    /// These fields.
    With(Fields),
}

/// What the headers said.
#[derive(Default)]
pub struct Head {
    /// POST.
    pub posted: bool,
    /// application/grpc, or a kind of it.
    pub typed: bool,
    /// Bytes as HTTP/2 counts them.
    pub bytes: usize,
    /// grpc-timeout.
    pub timeout_ns: Option<i64>,
    /// grpc-encoding.
    pub encoding: Encoding,
    /// The path of a raw call.
    pub path: String,
    /// Metadata of a raw call.
    pub metadata: Fields,
}

/// See above.
pub struct Stream {
    /// None: nobody serves its path.
    pub method: Option<Method>,
    /// How far it is.
    pub phase: Phase,
    /// From its headers.
    pub head: Head,
    /// Monotonic.
    pub arrived_ns: i64,
    /// Monotonic, from grpc-timeout.
    pub deadline_ns: Option<i64>,
    /// Bytes of messages that are not whole, or for which there is no room.
    pub body: Vec<u8>,
    /// Bytes of the window that were not given back.
    pub unconsumed: usize,
    /// The one call inside; 0: none.
    pub handle: u64,
    /// Calls inside, of a stream of messages.
    pub handles: Vec<u64>,
    /// A raw call's id; 0: none.
    pub raw: u64,
    /// Messages that a raw call's handler asked for.
    pub wanted: u32,
    /// Messages to be sent.
    pub out: Vec<u8>,
    /// How much of `out` is sent.
    pub sent: usize,
    /// Response headers of a raw call's own.
    pub initial: Fields,
    /// Set once nothing more will be added to `out`.
    pub ending: Option<StreamEnd>,
    /// Response headers were submitted.
    pub headers_submitted: bool,
    /// The session waits for `out` to grow.
    pub deferred: bool,
    /// The peer has said all.
    pub remote_closed: bool,
    /// A raw call's handler waits for `out` to be empty.
    pub notify_when_sent: bool,
}

impl Stream {
    /// A stream whose headers begin.
    pub fn new(arrived_ns: i64) -> Stream {
        Stream {
            method: None,
            phase: Phase::Head,
            head: Head::default(),
            arrived_ns,
            deadline_ns: None,
            body: Vec::new(),
            unconsumed: 0,
            handle: 0,
            handles: Vec::new(),
            raw: 0,
            wanted: 0,
            out: Vec::new(),
            sent: 0,
            initial: Vec::new(),
            ending: None,
            headers_submitted: false,
            deferred: false,
            remote_closed: false,
            notify_when_sent: false,
        }
    }

    /// Fill `into`, and say what follows.
    pub fn read(&mut self, into: &mut [u8]) -> (usize, BodyState) {
        let left = &self.out[self.sent..];
        let count = left.len().min(into.len());
        into[..count].copy_from_slice(&left[..count]);
        self.sent += count;
        if self.sent < self.out.len() {
            return (count, BodyState::More);
        }
        self.out.clear();
        self.sent = 0;
        match self.ending.take() {
            None => {
                self.deferred = count == 0;
                (count, BodyState::Wait)
            }
            Some(StreamEnd::Ok) => (count, BodyState::Ok),
            Some(StreamEnd::With(fields)) => (count, BodyState::Trailers(fields)),
        }
    }

    /// Bytes that wait to be sent.
    pub fn unsent(&self) -> usize {
        self.out.len() - self.sent
    }
}
