//! One HTTP/2 stream: its request, its buffers, and the calls that it has inside.

use crate::calls::callers::{Authorization, CallerNumber};
use crate::http2::bounds::inflate::Inflation;
use crate::http2::grpc::Encoding;
use crate::http2::request_head::RequestHead;
use crate::http2::stream_holds::Holds;
use crate::sys::nghttp2::{BodyState, Fields};

/// How the method at a path is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// One PredictRequest, decoded here.
    Predict,
    /// A stream of PredictRequests, decoded here.
    PredictStream,
    /// One ModelInferRequest of the Open Inference Protocol, decoded here.
    Infer,
    /// One message, passed to Python as bytes.
    RawUnary,
    /// A stream of messages, passed to Python as bytes.
    RawStream,
}

impl Method {
    /// Whether the client may send more than one message.
    pub fn is_client_streaming(self) -> bool {
        matches!(self, Method::PredictStream | Method::RawStream)
    }

    /// Whether Python gets the messages as bytes.
    pub fn is_raw(self) -> bool {
        matches!(self, Method::RawUnary | Method::RawStream)
    }
}

/// How much of a stream's request was received.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The header block is being received.
    Headers,
    /// Messages are accepted.
    Open,
    /// No further message is accepted: the only one was received, or the call is over. Bytes that
    /// still arrive are discarded.
    InputDone,
}

/// How a stream ends.
pub enum StreamEnd {
    /// With grpc-status 0 and nothing else.
    Ok,
    /// With these trailers.
    Trailers(Fields),
    /// With nothing: it is a text, and not gRPC.
    Plain,
}

/// The HTTP status of a request that is not gRPC, and words for a person.
pub type HttpAnswer = (&'static [u8], &'static str);

/// What the header block of a request said.
#[derive(Default)]
pub struct RequestHeaders {
    /// :method was POST.
    pub is_post: bool,
    /// content-type was application/grpc, with or without a suffix.
    pub is_grpc: bool,
    /// Size of the header list as HTTP/2 counts it.
    pub bytes: usize,
    /// The timeout of header `grpc-timeout`; None without the header.
    pub timeout_ns: Option<i64>,
    /// The message encoding of header `grpc-encoding`.
    pub encoding: Encoding,
    /// The path, kept for raw calls only.
    pub path: String,
    /// The metadata, kept for raw calls only.
    pub metadata: Fields,
}

/// One stream from the beginning of its header block until nghttp2 reports it closed.
///
/// Received bytes gather in `incoming` until they are a whole message. Messages to be sent gather in
/// `outgoing`, which nghttp2 reads through `read`.
pub struct Stream {
    /// How the path is served. None: no method has this path.
    pub method: Option<Method>,
    /// How much of the request was received.
    pub phase: Phase,
    /// The rules of HTTP/2 on its fields and its length.
    pub head: RequestHead,
    /// The request's headers.
    pub headers: RequestHeaders,
    /// The answer of a request that is not gRPC, sent when the request has ended.
    pub http_answer: Option<HttpAnswer>,
    /// What its authorization header says.
    pub authorization: Authorization,
    /// The caller whose open calls it counts among. 0: none.
    pub caller: CallerNumber,
    /// Python verifies the token. Bytes that arrive wait until it is done.
    pub verifying: bool,
    /// Monotonic time at which the header block began.
    pub arrived_ns: i64,
    /// Monotonic deadline, from grpc-timeout.
    pub deadline_ns: Option<i64>,
    /// Received bytes of a message that is not complete, or that cannot be admitted yet.
    pub incoming: Vec<u8>,
    /// Received bytes for which no WINDOW_UPDATE was sent yet.
    pub unconsumed: usize,
    /// What it holds of its connection's budgets.
    pub holds: Holds,
    /// A compressed message that is being inflated. Further messages wait.
    pub inflation: Option<Box<Inflation>>,
    /// Handle of a unary call that is inside. 0: there is none.
    pub handle: u64,
    /// Handles of a PredictStream's calls that are inside.
    pub handles: Vec<u64>,
    /// Id of the raw call. 0: this is not a raw call.
    pub raw_call: u64,
    /// Messages that the raw call's handler asked for and did not get yet. -1: it has got the first
    /// message, with which its call began, and has not asked for it yet.
    pub messages_wanted: i32,
    /// Messages to be sent, with their gRPC prefixes.
    pub outgoing: Vec<u8>,
    /// How many bytes of `outgoing` nghttp2 has read.
    pub sent: usize,
    /// Response headers that a raw call adds.
    pub initial_metadata: Fields,
    /// How the stream ends once `outgoing` is sent. None: more messages may follow.
    pub end: Option<StreamEnd>,
    /// The response headers were submitted to nghttp2.
    pub headers_submitted: bool,
    /// nghttp2 found nothing to send and waits for `Session::resume`.
    pub deferred: bool,
    /// The client sent END_STREAM.
    pub remote_closed: bool,
    /// A raw call's handler waits until `outgoing` is empty.
    pub notify_when_sent: bool,
}

impl Stream {
    /// A stream whose header block begins.
    pub fn new(arrived_ns: i64) -> Stream {
        Stream {
            method: None,
            phase: Phase::Headers,
            head: RequestHead::default(),
            headers: RequestHeaders::default(),
            http_answer: None,
            authorization: Authorization::default(),
            caller: 0,
            verifying: false,
            arrived_ns,
            deadline_ns: None,
            incoming: Vec::new(),
            unconsumed: 0,
            holds: Holds::default(),
            inflation: None,
            handle: 0,
            handles: Vec::new(),
            raw_call: 0,
            messages_wanted: 0,
            outgoing: Vec::new(),
            sent: 0,
            initial_metadata: Vec::new(),
            end: None,
            headers_submitted: false,
            deferred: false,
            remote_closed: false,
            notify_when_sent: false,
        }
    }

    /// Copy outgoing bytes into `into`. Returns how many, and what follows them.
    pub fn read(&mut self, into: &mut [u8]) -> (usize, BodyState) {
        let unsent = &self.outgoing[self.sent..];
        let count = unsent.len().min(into.len());
        into[..count].copy_from_slice(&unsent[..count]);
        self.sent += count;
        if self.sent < self.outgoing.len() {
            return (count, BodyState::More);
        }
        self.outgoing.clear();
        self.sent = 0;
        match self.end.take() {
            None => {
                self.deferred = count == 0;
                (count, BodyState::Deferred)
            }
            Some(StreamEnd::Ok) => (count, BodyState::Ok),
            Some(StreamEnd::Plain) => (count, BodyState::Plain),
            Some(StreamEnd::Trailers(fields)) => (count, BodyState::Trailers(fields)),
        }
    }

    /// Bytes that are still to be sent.
    pub fn unsent(&self) -> usize {
        self.outgoing.len() - self.sent
    }
}
