//! What a stream holds of its connection's budgets: parts of messages, gzip, and raw calls.

use std::sync::Arc;

use crate::calls::refusal::{code, Refusal};
use crate::http2::bounds::budget::Held;
use crate::http2::bounds::inflate::Inflation;
use crate::http2::grpc;
use crate::http2::service::{RawCallEvent, Service};
use crate::http2::stream::Method;
use crate::http2::stream_events::{pay_bytes, StreamEvents};

/// What one stream holds of its connection's budgets. All is given back when its call ends.
///
/// Python's copy of a raw call counts until Python has taken the event and the call has ended.
#[derive(Default)]
pub struct Holds {
    /// For a part of a message.
    incoming: Option<Held>,
    /// For a raw call's headers.
    headers: Option<Arc<Held>>,
    /// For a raw call's last message. When a handler asks for the next one, it is done with this.
    message: Option<Arc<Held>>,
}

impl<S: Service> StreamEvents<'_, S> {
    /// Count the bytes of a message that has arrived in part. The call ends if there are too many.
    pub(super) fn hold_incoming(&mut self, id: i32) {
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        let bytes = stream.incoming.len();
        if bytes == 0 {
            stream.holds.incoming = None;
            return;
        }
        let budgets = &self.streams.budgets;
        let held = stream.holds.incoming.get_or_insert_with(|| {
            let compressed = stream.incoming[0] != 0;
            let costly = compressed || stream.method.is_some_and(Method::is_raw);
            Held::new(if costly { &budgets.inside } else { &budgets.receiving })
        });
        if let Err(refusal) = held.resize(bytes) {
            self.refuse(id, &refusal);
        }
    }

    /// Begin to inflate a message. It goes on in `inflate_slice`.
    pub(super) fn begin_inflation(&mut self, id: i32, flag: u8, method: Method, message: &[u8]) {
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        // Refuse what is not gzip, and what would be refused however large it is.
        if let Some(refusal) = grpc::flag_refusal(flag, stream.headers.encoding) {
            return self.refuse(id, &refusal);
        }
        // gRPC's libraries do not compress an empty message, and mark it nevertheless.
        if message.is_empty() {
            return if method.is_raw() {
                self.raw_message(id, Vec::new(), None);
            } else {
                self.scored_message(id, method, message);
            };
        }
        if !method.is_raw() {
            if let Some(refusal) = self.server.full() {
                self.server.count_refusal("", &refusal);
                return self.refuse_message(id, method, &refusal, "");
            }
        }
        // Move the bytes from the part of a message to the inflation, and wait for a turn.
        if !method.is_client_streaming() {
            stream.holds.incoming = None;
        }
        let limits = self.server.limits();
        let until_ns = self.server.now_ns() + limits.body_ns_max;
        let until_ns = stream.deadline_ns.map_or(until_ns, |ns| ns.min(until_ns));
        let held = Held::new(&self.streams.budgets.inside);
        let bound = limits.message_bound(Some(method));
        match Inflation::new(stream.headers.encoding, message, bound, until_ns, held) {
            Ok(inflation) => {
                stream.inflation = Some(Box::new(inflation));
                let (client, stream_ref) = (self.streams.client, self.stream_ref(id));
                self.server.queue_inflation(client, stream_ref, false);
            }
            Err(refusal) => self.refuse(id, &refusal),
        }
    }

    /// Inflate a slice of a stream's message, and handle the message after the last one.
    pub fn inflate_slice(&mut self, id: i32) {
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return;
        };
        let (Some(mut inflation), Some(method)) = (stream.inflation.take(), stream.method) else {
            return;
        };
        if inflation.until_ns < self.server.now_ns() {
            let message = "the message could not be inflated in time (message_ms_max)";
            return self.refuse(id, &Refusal::new(code::DEADLINE_EXCEEDED, message));
        }
        match inflation.run_slice() {
            Err(refusal) => self.refuse(id, &refusal),
            Ok(false) => {
                stream.inflation = Some(inflation);
                let (client, stream_ref) = (self.streams.client, self.stream_ref(id));
                self.server.queue_inflation(client, stream_ref, true);
            }
            Ok(true) => {
                let (message, held) = inflation.finish();
                if method.is_raw() {
                    self.raw_message(id, message, Some(held));
                } else {
                    self.scored_message(id, method, &message);
                }
                // Messages behind it have waited.
                if method.is_client_streaming() {
                    self.take_messages(id);
                    self.streams.end_when_idle(id);
                }
            }
        }
    }

    /// Pass a raw call's message to Python. `held` has its bytes, if they are counted already.
    ///
    /// The call begins with its first message: a call whose message is refused costs Python nothing.
    pub(super) fn raw_message(&mut self, id: i32, message: Vec<u8>, held: Option<Held>) {
        let Some(stream) = self.streams.open.get(&id) else {
            return;
        };
        let (caller, is_first) = (stream.caller, stream.raw_call == 0);
        if let Err(refusal) = pay_bytes(self.server, caller, message.len()) {
            return self.streams.refuse(id, &refusal);
        }
        if is_first && !self.open_raw_call(id) {
            return;
        }
        let mut held = held.unwrap_or_else(|| Held::new(&self.streams.budgets.inside));
        if let Err(refusal) = held.resize(message.len()) {
            return self.refuse(id, &refusal);
        }
        if let Some(stream) = self.streams.open.get_mut(&id) {
            let held = Arc::new(held);
            stream.holds.message = Some(Arc::clone(&held));
            stream.messages_wanted -= 1;
            let raw_call = stream.raw_call;
            self.server.raw_call_event(RawCallEvent::Message(raw_call, message, held));
        }
    }

    /// Begin a raw call, with the path and metadata that Python needs. False: it is refused.
    pub(super) fn open_raw_call(&mut self, id: i32) -> bool {
        let stream_ref = self.stream_ref(id);
        let Some(stream) = self.streams.open.get_mut(&id) else {
            return false;
        };
        let mut held = Held::new(&self.streams.budgets.inside);
        if let Err(refusal) = held.resize(stream.headers.bytes) {
            self.refuse(id, &refusal);
            return false;
        }
        let held = Arc::new(held);
        stream.holds.headers = Some(Arc::clone(&held));
        stream.raw_call = self.server.open_raw_call(stream_ref);
        let path = std::mem::take(&mut stream.headers.path);
        let metadata = std::mem::take(&mut stream.headers.metadata);
        let (deadline_ns, caller) = (stream.deadline_ns.unwrap_or(0), stream.caller);
        let fields = (metadata, held);
        let opened = RawCallEvent::Opened(stream.raw_call, path, fields, deadline_ns, caller);
        self.server.raw_call_event(opened);
        true
    }
}
