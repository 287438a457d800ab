//! What a connection needs from the server behind it, as a trait, so that HTTP/2 does not depend on
//! the I/O thread.

use std::sync::Arc;

use crate::calls::callers::{CallerNumber, Callers};
use crate::calls::refusal::Refusal;
use crate::calls::shape::NameLimits;
use crate::http2::bounds::budget::Held;
use crate::http2::bounds::client::Client;
use crate::http2::grpc::MessageBound;
use crate::http2::stream::Method;
use crate::sys::nghttp2::Fields;

/// Bounds on connections, streams and messages. docs/limits.md gives the default of each.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Concurrent streams of one connection.
    pub streams_max: u32,
    /// Open connections.
    pub connections_max: usize,
    /// Open connections of one client.
    pub client_connections_max: usize,
    /// Bytes of one message.
    pub message_bytes_max: usize,
    /// Bytes of one message of a method that scores nothing.
    pub unscored_message_bytes_max: usize,
    /// `Budgets::inside` of the worker.
    pub message_bytes_inside_max: usize,
    /// `Budgets::receiving` of the worker.
    pub message_bytes_receiving_max: usize,
    /// Bytes of one call's headers, as HTTP/2 counts them.
    pub metadata_bytes_max: usize,
    /// Time from a call's headers to its message.
    pub body_ns_max: i64,
    /// A deadline further away than this is cut to it.
    pub deadline_ns_max: i64,
    /// Unanswered messages of one PredictStream.
    pub stream_calls_max: usize,
    /// Streams that a connection may reset a second in the long run.
    pub resets_s_max: i64,
    /// Age at which a connection is closed gracefully.
    pub age_ns_max: i64,
    /// How long a connection may stay open after its GOAWAY.
    pub grace_ns: i64,
    /// Bounds on names and ids, for all models.
    pub names: NameLimits,
}

impl Limits {
    /// The bound of a message of one method.
    pub fn message_bound(&self, method: Option<Method>) -> MessageBound {
        MessageBound::of(method, self.message_bytes_max, self.unscored_message_bytes_max)
    }
}

/// One stream of one connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StreamRef {
    /// The connection's token, which is never used for another connection.
    pub token: u64,
    /// HTTP/2's stream identifier.
    pub stream: i32,
}

/// What has to happen before a stream's timer expires.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TimerKind {
    /// The call's message has to arrive.
    Message,
    /// The call has to end.
    Deadline,
}

/// A step of a raw call, which is a call that Python handles itself. The first field is its id.
pub enum RawCallEvent {
    /// The call began: id, path, metadata and the bytes it holds, monotonic deadline in ns or 0,
    /// caller.
    Opened(u64, String, (Fields, Arc<Held>), i64, CallerNumber),
    /// One message arrived: id, message and the bytes it holds.
    Message(u64, Vec<u8>, Arc<Held>),
    /// The client closed its side of the stream.
    Ended(u64),
    /// The stream was closed, or its deadline passed.
    Gone(u64),
    /// All messages that were sent have left the stream's buffer.
    Flushed(u64),
    /// No step of a call: Python has to verify this token.
    Verify(Vec<u8>),
}

/// The server behind a connection.
pub trait Service {
    /// The bounds that the connection keeps.
    fn limits(&self) -> &Limits;

    /// Monotonic nanoseconds, read once for each turn of the I/O loop.
    fn now_ns(&self) -> i64;

    /// The callers, if there is a callers file.
    fn callers(&mut self) -> Option<&mut Callers>;

    /// Resume a stream when Python has verified its token.
    fn wait_for_verdict(&mut self, stream: StreamRef);

    /// The method served at a path, if there is one.
    fn method(&self, path: &[u8]) -> Option<Method>;

    /// Decode one message and admit it to the call queue. Returns the call's handle. If the message
    /// is refused, returns the reason and the request id, as far as it could be read.
    fn admit(
        &mut self,
        method: Method,
        message: &[u8],
        stream: StreamRef,
        caller: CallerNumber,
        arrived_ns: i64,
        deadline_ns: Option<i64>,
    ) -> Result<u64, (Refusal, String)>;

    /// Why no call of a scored method can be admitted now, whatever it asks for. None: some can.
    fn full(&mut self) -> Option<Refusal>;

    /// Have a slice of a stream's message inflated in its client's turn, the first one or a further.
    fn queue_inflation(&mut self, client: Client, stream: StreamRef, started: bool);

    /// Release an admitted call whose stream is closed. A call that was answered is ignored.
    fn release(&mut self, handle: u64);

    /// Count a refusal. `model` is the name in the request, or empty.
    fn count_refusal(&mut self, model: &str, refusal: &Refusal);

    /// Check a stream at `at_ns`.
    fn set_timer(&mut self, at_ns: i64, stream: StreamRef, kind: TimerKind);

    /// Begin a raw call and return its id, which is never 0.
    fn open_raw_call(&mut self, stream: StreamRef) -> u64;

    /// Tell Python about a step of a raw call.
    fn raw_call_event(&mut self, event: RawCallEvent);

    /// End a raw call from the caller's side. Python hears `Gone` if the call was still open.
    fn close_raw_call(&mut self, raw_call: u64);
}
