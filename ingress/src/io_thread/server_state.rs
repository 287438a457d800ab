//! The door's own books, on the I/O thread: what is known, who is inside, where answers go.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use crate::calls::decode as predict;
use crate::calls::infer;
use crate::calls::shape::{Call, NameLimits, Refusal, Shapes};
use crate::http2::stream::Method;
use crate::io_thread::shared::{Event, Shared};

/// What this door takes; docs/limits.md has each.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Streams a connection.
    pub streams_max: u32,
    /// Connections.
    pub connections_max: usize,
    /// One message.
    pub message_bytes_max: usize,
    /// One call's headers.
    pub metadata_bytes_max: usize,
    /// From headers to the message.
    pub body_ns_max: i64,
    /// A later deadline is read as this.
    pub deadline_ns_max: i64,
    /// Messages of one PredictStream inside.
    pub stream_calls_max: usize,
    /// When a connection is asked to leave.
    pub age_ns_max: i64,
    /// How long it may then stay.
    pub grace_ns: i64,
    /// Of names, for all models.
    pub names: NameLimits,
}

/// A stream of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StreamRef {
    /// The connection.
    pub token: u64,
    /// The stream.
    pub stream: i32,
}

/// How a call's reply is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ReplyFormat {
    /// A PredictReply, and the stream ends.
    Unary,
    /// A StreamReply.
    Stream,
    /// A ModelInferResponse, scores raw or typed.
    Infer(bool),
}

/// Where a call's reply goes.
pub struct ReplyRoute {
    generation: u32,
    /// Whose it is.
    pub place: StreamRef,
    /// What it is written as.
    pub dialect: ReplyFormat,
    /// The request id, or the `id`, that goes back with it.
    pub echo: Vec<u8>,
}

/// What a deadline is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TimerKind {
    /// The message must be here.
    Message,
    /// The call must be over.
    Deadline,
}

/// See above.
pub struct ServerState {
    /// What is taken.
    pub limits: Limits,
    /// Models served.
    pub shapes: Shapes,
    /// Paths served.
    pub methods: HashMap<Vec<u8>, Method>,
    /// To Python.
    pub shared: Arc<Shared>,
    /// Where raw calls are.
    pub raw_calls: HashMap<u64, StreamRef>,
    /// Monotonic, of this turn.
    pub now_ns: i64,
    /// Python has something to hear: calls that wait, if it asked; and the rest.
    pub arrived: bool,
    /// Events or refusals for Python.
    pub events_pending: bool,
    routes: Vec<ReplyRoute>,
    next_raw_call: u64,
    timers: BinaryHeap<Reverse<(i64, StreamRef, TimerKind)>>,
}

impl ServerState {
    /// An empty one.
    pub fn new(
        limits: Limits,
        methods: HashMap<Vec<u8>, Method>,
        shared: Arc<Shared>,
    ) -> ServerState {
        ServerState {
            limits,
            shapes: Shapes::new(),
            methods,
            shared,
            raw_calls: HashMap::new(),
            now_ns: 0,
            arrived: false,
            events_pending: false,
            routes: Vec::new(),
            next_raw_call: 1,
            timers: BinaryHeap::new(),
        }
    }

    /// Decode and admit one message of `method`; the handle, or why not and its request id.
    pub fn admit(
        &mut self,
        method: Method,
        message: &[u8],
        place: StreamRef,
        arrived_ns: i64,
        deadline_ns: Option<i64>,
    ) -> Result<u64, (Refusal, String)> {
        let (decoded, dialect, echo) = match method {
            Method::Infer => {
                let asked = infer::decode(message, &self.shapes, &self.limits.names);
                (asked.decoded, ReplyFormat::Infer(asked.raw), Some(asked.id))
            }
            Method::PredictStream => {
                let decoded = predict::decode(message, &self.shapes, &self.limits.names);
                (decoded, ReplyFormat::Stream, None)
            }
            _ => {
                let decoded = predict::decode(message, &self.shapes, &self.limits.names);
                (decoded, ReplyFormat::Unary, None)
            }
        };
        let call = match decoded.call {
            Ok(call) => call,
            Err(refusal) => {
                self.refused(&decoded.model, &refusal);
                return Err((refusal, decoded.request_id));
            }
        };
        let request_id = call.parts()[4];
        let echo = echo.unwrap_or_else(|| request_id.to_vec());
        let deadline_ns = self.deadline_ns(&call, dialect, arrived_ns, deadline_ns);
        let shape = Arc::clone(&call.shape);
        match self.shared.with_queue(|queue| queue.enter(call, arrived_ns, deadline_ns)) {
            Ok(handle) => {
                self.arrived = true;
                self.route(handle, place, dialect, echo);
                Ok(handle)
            }
            Err(refusal) => {
                self.refused(&shape.model, &refusal);
                Err((refusal, String::from_utf8_lossy(&echo).into_owned()))
            }
        }
    }

    fn deadline_ns(
        &self,
        call: &Call,
        dialect: ReplyFormat,
        arrived_ns: i64,
        asked: Option<i64>,
    ) -> i64 {
        let default = arrived_ns + call.shape.deadline_ns_default;
        let latest = arrived_ns + self.limits.deadline_ns_max;
        match (asked, dialect) {
            (None, _) => default,
            (Some(asked), ReplyFormat::Stream) => asked.min(latest).min(default),
            (Some(asked), _) => asked.min(latest),
        }
    }

    fn route(&mut self, handle: u64, place: StreamRef, dialect: ReplyFormat, echo: Vec<u8>) {
        let (index, generation) = (handle as u32 as usize, (handle >> 32) as u32);
        let route = ReplyRoute {
            generation,
            place,
            dialect,
            echo,
        };
        if index < self.routes.len() {
            self.routes[index] = route;
        } else {
            // Slots are given out one by one: the next one is the only one that can be missing.
            self.routes.push(route);
        }
    }

    /// Where the reply to `handle` goes, once; None: its caller is gone.
    pub fn take_route(&mut self, handle: u64) -> Option<ReplyRoute> {
        let route = self.routes.get_mut(handle as u32 as usize)?;
        if route.generation != (handle >> 32) as u32 || route.place.stream == 0 {
            return None;
        }
        let taken = ReplyRoute {
            echo: std::mem::take(&mut route.echo),
            ..*route
        };
        route.place.stream = 0;
        Some(taken)
    }

    /// Give a call's rows back: answered, or gone.
    pub fn leave(&mut self, handle: u64) {
        self.take_route(handle);
        self.shared.with_queue(|queue| queue.leave(handle));
    }

    /// Count a refusal made here.
    pub fn refused(&mut self, model: &str, refusal: &Refusal) {
        let known = if self.shapes.contains_key(model.as_bytes()) { model } else { "" };
        self.shared.refusals().note(known, refusal);
        self.events_pending = true;
    }

    /// Tell Python.
    pub fn event(&mut self, event: Event) {
        self.shared.event(event);
        self.events_pending = true;
    }

    /// A raw call begins.
    pub fn open_raw(&mut self, place: StreamRef) -> u64 {
        let raw = self.next_raw_call;
        self.next_raw_call += 1;
        self.raw_calls.insert(raw, place);
        raw
    }

    /// Look at `place` at `at_ns`.
    pub fn set_timer(&mut self, at_ns: i64, place: StreamRef, due: TimerKind) {
        self.timers.push(Reverse((at_ns, place, due)));
    }

    /// When to look next.
    pub fn next_timer_ns(&self) -> Option<i64> {
        self.timers.peek().map(|Reverse((at_ns, _, _))| *at_ns)
    }

    /// The next look that is due.
    pub fn due(&mut self) -> Option<(StreamRef, TimerKind)> {
        if self.next_timer_ns()? > self.now_ns {
            return None;
        }
        self.timers.pop().map(|Reverse((_, place, due))| (place, due))
    }
}
