//! What the I/O thread knows beyond its connections: models, methods, timers, and where replies go.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use crate::calls::callers::{
    model_forbidden, CallerNumber, Callers, TokenDigest, BYTES, CALLS, ROWS,
};
use crate::calls::decode::decode_predict;
use crate::calls::infer::decode_infer;
use crate::calls::refusal::{code, Refusal};
use crate::calls::shape::{Call, ModelShapes};
use crate::http2::bounds::budget::Budgets;
use crate::http2::bounds::client::Client;
use crate::http2::bounds::inflate::InflationQueue;
use crate::http2::service::{Limits, RawCallEvent, Service, StreamRef, TimerKind};
use crate::http2::stream::Method;
use crate::io_thread::shared::Shared;
use crate::io_thread::usual_groups::FreshCall;

/// How a call's reply is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ReplyFormat {
    /// A PredictReply, which ends the stream.
    Predict,
    /// A StreamReply. The stream goes on.
    PredictStream,
    /// A ModelInferResponse, which ends the stream. True: scores go into raw_output_contents.
    Infer(bool),
}

/// Where a call's reply goes.
pub struct ReplyRoute {
    generation: u32,
    /// The stream. Its identifier is 0 once the route was taken.
    pub stream: StreamRef,
    /// How the reply is written.
    pub format: ReplyFormat,
    /// The request id of a Predict call, or the `id` of a ModelInfer, which the reply repeats.
    pub echoed_id: Vec<u8>,
}

/// The state of one I/O thread behind all its connections. It implements `Service` for them.
///
/// Routes lie at the slot that a call's handle names, with the handle's generation. A route is taken
/// once: by the reply, or when the stream is closed before it.
pub struct ServerState {
    /// Bounds on connections, streams and messages.
    pub limits: Limits,
    /// The models that are served.
    pub shapes: ModelShapes,
    methods: HashMap<Vec<u8>, Method>,
    /// The state that Python uses too.
    pub shared: Arc<Shared>,
    /// Bytes of messages that all callers may have inside.
    pub budgets: Budgets,
    /// Streams whose messages are being inflated.
    pub inflations: InflationQueue,
    /// The callers, if there is a callers file.
    pub callers: Option<Callers>,
    /// Streams that wait until Python has verified their token.
    pub verifying: Vec<StreamRef>,
    /// Open raw calls, by id.
    pub raw_calls: HashMap<u64, StreamRef>,
    /// Monotonic time of this turn of the I/O loop.
    pub now_ns: i64,
    /// Calls of this turn that may be answered here.
    pub fresh_calls: Vec<FreshCall>,
    /// Calls were admitted in this turn that Python answers.
    pub calls_admitted: bool,
    /// There are events or refusals for Python from this turn.
    pub events_pending: bool,
    routes: Vec<ReplyRoute>,
    next_raw_call: u64,
    timers: BinaryHeap<Reverse<(i64, StreamRef, TimerKind)>>,
}

impl ServerState {
    /// The state of a thread that serves no model yet. `methods` is by path.
    pub fn new(
        limits: Limits,
        methods: HashMap<Vec<u8>, Method>,
        shared: Arc<Shared>,
    ) -> ServerState {
        let budgets =
            Budgets::worker(limits.message_bytes_inside_max, limits.message_bytes_receiving_max);
        ServerState {
            limits,
            shapes: ModelShapes::new(),
            methods,
            shared,
            budgets,
            inflations: InflationQueue::default(),
            callers: None,
            verifying: Vec::new(),
            raw_calls: HashMap::new(),
            now_ns: 0,
            fresh_calls: Vec::new(),
            calls_admitted: false,
            events_pending: false,
            routes: Vec::new(),
            next_raw_call: 1,
            timers: BinaryHeap::new(),
        }
    }

    /// A call's deadline: the caller's, cut to `deadline_ns_max`, or the model's default. A message of
    /// a PredictStream has the model's default too, since the caller's deadline is the stream's.
    fn deadline_ns(
        &self,
        call: &Call,
        format: ReplyFormat,
        arrived_ns: i64,
        requested_ns: Option<i64>,
    ) -> i64 {
        let default = arrived_ns + call.shape.deadline_ns_default;
        let latest = arrived_ns + self.limits.deadline_ns_max;
        match (requested_ns, format) {
            (None, _) => default,
            (Some(requested_ns), ReplyFormat::PredictStream) => {
                requested_ns.min(latest).min(default)
            }
            (Some(requested_ns), _) => requested_ns.min(latest),
        }
    }

    /// A model that a caller may not call is refused as one that does not exist.
    fn refusal_of_caller(
        &mut self,
        refusal: Refusal,
        caller: CallerNumber,
        model: &str,
    ) -> Refusal {
        match self.callers.as_mut() {
            Some(callers)
                if refusal.code == code::NOT_FOUND && !callers.may_call(caller, model) =>
            {
                callers.count_refusal(caller, code::PERMISSION_DENIED);
                model_forbidden()
            }
            _ => refusal,
        }
    }

    /// Remember whose token it is. Returns the streams that waited for it.
    pub fn end_verifying(
        &mut self,
        key: TokenDigest,
        caller: CallerNumber,
        expires_ns: i64,
    ) -> Vec<StreamRef> {
        if let Some(callers) = self.callers.as_mut() {
            callers.end_verifying(key, caller, expires_ns);
        }
        std::mem::take(&mut self.verifying)
    }

    fn set_route(
        &mut self,
        handle: u64,
        stream: StreamRef,
        format: ReplyFormat,
        echoed_id: Vec<u8>,
    ) {
        let (index, generation) = (handle as u32 as usize, (handle >> 32) as u32);
        let route = ReplyRoute {
            generation,
            stream,
            format,
            echoed_id,
        };
        if index < self.routes.len() {
            self.routes[index] = route;
        } else {
            // The queue hands out slots in order, so only the next one can be missing.
            self.routes.push(route);
        }
    }

    /// Take the route of a call's reply. None: it was taken before.
    pub fn take_route(&mut self, handle: u64) -> Option<ReplyRoute> {
        let route = self.routes.get_mut(handle as u32 as usize)?;
        if route.generation != (handle >> 32) as u32 || route.stream.stream == 0 {
            return None;
        }
        let taken = ReplyRoute {
            echoed_id: std::mem::take(&mut route.echoed_id),
            ..*route
        };
        route.stream.stream = 0;
        Some(taken)
    }

    /// Take the calls of this turn that have come so far and whose callers are still there.
    pub fn take_fresh_calls(&mut self) -> Vec<FreshCall> {
        let mut fresh = std::mem::take(&mut self.fresh_calls);
        fresh.retain(|(handle, _)| {
            let route = self.routes.get(*handle as u32 as usize);
            route.is_some_and(|route| {
                route.generation == (*handle >> 32) as u32 && route.stream.stream != 0
            })
        });
        fresh
    }

    /// Give calls to Python.
    pub fn enqueue(&mut self, calls: Vec<FreshCall>) {
        if calls.is_empty() {
            return;
        }
        self.calls_admitted = true;
        self.shared.with_queue(|queue| {
            for (handle, waiting) in calls {
                queue.enqueue(handle, waiting);
            }
        });
    }

    /// When the next timer expires.
    pub fn next_timer_ns(&self) -> Option<i64> {
        self.timers.peek().map(|Reverse((at_ns, _, _))| *at_ns)
    }

    /// Take the next timer that has expired.
    pub fn expired_timer(&mut self) -> Option<(StreamRef, TimerKind)> {
        if self.next_timer_ns()? > self.now_ns {
            return None;
        }
        self.timers.pop().map(|Reverse((_, stream, kind))| (stream, kind))
    }
}

impl Service for ServerState {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn now_ns(&self) -> i64 {
        self.now_ns
    }

    fn callers(&mut self) -> Option<&mut Callers> {
        self.callers.as_mut()
    }

    fn wait_for_verdict(&mut self, stream: StreamRef) {
        self.verifying.push(stream);
    }

    fn method(&self, path: &[u8]) -> Option<Method> {
        self.methods.get(path).copied()
    }

    fn admit(
        &mut self,
        method: Method,
        message: &[u8],
        stream: StreamRef,
        caller: CallerNumber,
        arrived_ns: i64,
        deadline_ns: Option<i64>,
    ) -> Result<u64, (Refusal, String)> {
        // Decode the message as the method has it. A caller's other models do not exist for it.
        let callers = self.callers.as_ref();
        let shapes = callers.and_then(|callers| callers.shapes(caller)).unwrap_or(&self.shapes);
        let (decoded, format, infer_id) = match method {
            Method::Infer => {
                let request = decode_infer(message, shapes, &self.limits.names);
                (request.decoded, ReplyFormat::Infer(request.raw), Some(request.id))
            }
            Method::PredictStream => {
                let decoded = decode_predict(message, shapes, &self.limits.names);
                (decoded, ReplyFormat::PredictStream, None)
            }
            _ => {
                let decoded = decode_predict(message, shapes, &self.limits.names);
                (decoded, ReplyFormat::Predict, None)
            }
        };
        let mut call = match decoded.call {
            Ok(call) => call,
            Err(refusal) => {
                let refusal = self.refusal_of_caller(refusal, caller, &decoded.model);
                self.count_refusal(&decoded.model, &refusal);
                return Err((refusal, decoded.request_id));
            }
        };
        if call.pin > 0 {
            let callers = self.callers.as_ref();
            call.any_version =
                callers.is_some_and(|callers| callers.may_pin(caller, &call.shape.model));
        }
        // Take it from the caller's quotas. A unary call has paid for itself and its bytes already.
        let (rows, bytes) = (f64::from(call.rows), message.len() as f64);
        if let Some(callers) = self.callers.as_mut() {
            let mut paid = callers.take(caller, ROWS, rows, self.now_ns);
            if method == Method::PredictStream {
                let mut take = |what, amount| callers.take(caller, what, amount, self.now_ns);
                paid = paid.and_then(|()| take(CALLS, 1.0)).and_then(|()| take(BYTES, bytes));
            }
            if let Err(refusal) = paid {
                callers.count_refusal(caller, refusal.code);
                let request_id = String::from_utf8_lossy(call.parts()[4]).into_owned();
                let model = call.shape.model.clone();
                self.count_refusal(&model, &refusal);
                return Err((refusal, request_id));
            }
        }
        // Admit the call to the queue, and note where its reply goes.
        let request_id = call.parts()[4];
        let echoed_id = infer_id.unwrap_or_else(|| request_id.to_vec());
        let deadline_ns = self.deadline_ns(&call, format, arrived_ns, deadline_ns);
        let shape = Arc::clone(&call.shape);
        let aside = self.shared.answering.is_used();
        let admitted = self.shared.with_queue(|queue| {
            if !aside {
                return queue.admit(call, arrived_ns, deadline_ns).map(|handle| (handle, None));
            }
            let (handle, waiting) = queue.admit_aside(call, arrived_ns, deadline_ns)?;
            Ok((handle, Some(waiting)))
        });
        match admitted {
            Ok((handle, waiting)) => {
                match waiting {
                    Some(waiting) => self.fresh_calls.push((handle, waiting)),
                    None => self.calls_admitted = true,
                }
                self.set_route(handle, stream, format, echoed_id);
                Ok(handle)
            }
            Err(refusal) => {
                self.count_refusal(&shape.model, &refusal);
                Err((refusal, String::from_utf8_lossy(&echoed_id).into_owned()))
            }
        }
    }

    fn full(&mut self) -> Option<Refusal> {
        self.shared.with_queue(|queue| queue.full())
    }

    fn queue_inflation(&mut self, client: Client, stream: StreamRef, started: bool) {
        if started {
            self.inflations.push_started(client, stream);
        } else {
            self.inflations.push(client, stream);
        }
    }

    fn release(&mut self, handle: u64) {
        self.take_route(handle);
        self.shared.with_queue(|queue| queue.release(handle));
    }

    fn count_refusal(&mut self, model: &str, refusal: &Refusal) {
        // A model that is not served has no counter: callers could make up any number of names.
        let known = if self.shapes.contains_key(model.as_bytes()) { model } else { "" };
        self.shared.refusals().add(known, refusal);
        self.events_pending = true;
    }

    fn set_timer(&mut self, at_ns: i64, stream: StreamRef, kind: TimerKind) {
        self.timers.push(Reverse((at_ns, stream, kind)));
    }

    fn open_raw_call(&mut self, stream: StreamRef) -> u64 {
        let raw_call = self.next_raw_call;
        self.next_raw_call += 1;
        self.raw_calls.insert(raw_call, stream);
        raw_call
    }

    fn raw_call_event(&mut self, event: RawCallEvent) {
        self.shared.push_event(event);
        self.events_pending = true;
    }

    fn close_raw_call(&mut self, raw_call: u64) {
        if self.raw_calls.remove(&raw_call).is_some() {
            self.raw_call_event(RawCallEvent::Gone(raw_call));
        }
    }
}
