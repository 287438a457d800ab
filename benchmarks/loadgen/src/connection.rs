//! The client's side of one HTTP/2 connection, without I/O: what to send, and what arrived.

mod receive;
#[cfg(test)]
mod tests;

use crate::http2::frame_writer::FrameWriter;
use crate::http2::frames;
use crate::http2::hpack::Trailers;
use crate::open_calls::{MessageStream, OpenCalls};
use crate::protobuf::write_bytes;
use crate::requests::Requests;
use crate::results::{self, Results};
use std::collections::HashMap;
use std::rc::Rc;

/// What is the same for every call of a run.
#[derive(Debug)]
pub struct CallSettings {
    pub header_block: Vec<u8>,
    /// Unary calls, or message streams, that may be open at once on a connection.
    pub streams: usize,
    /// Messages that may be open on each PredictStream. 0: the calls are unary.
    pub messages: usize,
    /// A call that has not ended this long after it was due is cancelled.
    pub timeout_ns: u64,
}

pub struct Connection {
    settings: Rc<CallSettings>,
    pub writer: FrameWriter,
    calls: OpenCalls,
    message_streams: Vec<MessageStream>,
    /// The message stream that was last sent a message.
    last_used: usize,
    next_stream: u32,
    /// The server's SETTINGS arrived. No call is sent before.
    pub is_ready: bool,
    /// The server's SETTINGS_MAX_CONCURRENT_STREAMS.
    pub streams_allowed: usize,
    /// No new calls may be sent: GOAWAY arrived, or all stream numbers are used.
    pub is_closing: bool,
    /// The run is over, so message streams are being ended.
    is_finishing: bool,
    /// When each call was due that the server never processed. The owner sends these calls again
    /// on any connection.
    pub unprocessed: Vec<u64>,
    /// The beginning of a frame that has not arrived completely.
    partial_frame: Vec<u8>,
    /// A header block that CONTINUATION frames will complete: stream, flags of its HEADERS, bytes.
    partial_block: Option<(u32, u8, Vec<u8>)>,
    /// Messages that have not arrived completely, by stream.
    partial_messages: HashMap<u32, Vec<u8>>,
    /// Bytes received since the last WINDOW_UPDATE of the connection.
    received: u64,
    /// The last header block that ended a call, and its meaning. Nearly all blocks are equal, so
    /// this saves decoding them.
    last_trailers: (Vec<u8>, Trailers),
}

impl Connection {
    pub fn new(settings: Rc<CallSettings>) -> Connection {
        Connection {
            settings,
            writer: FrameWriter::new(),
            calls: OpenCalls::default(),
            message_streams: Vec::new(),
            last_used: 0,
            next_stream: 1,
            is_ready: false,
            streams_allowed: usize::MAX,
            is_closing: false,
            is_finishing: false,
            unprocessed: Vec::new(),
            partial_frame: Vec::new(),
            partial_block: None,
            partial_messages: HashMap::new(),
            received: 0,
            last_trailers: (Vec::new(), Trailers::default()),
        }
    }

    /// Returns how many calls or messages may be sent now.
    #[inline]
    pub fn free_slots(&self) -> usize {
        if self.is_closing || !self.is_ready || self.is_finishing {
            0
        } else if self.settings.messages > 0 {
            self.message_streams
                .iter()
                .filter(|open| !self.writer.is_stream_blocked(open.stream))
                .map(MessageStream::free_slots)
                .sum()
        } else if self.writer.is_blocked() {
            0
        } else {
            self.settings.streams.min(self.streams_allowed).saturating_sub(self.calls.len())
        }
    }

    /// Returns the number of calls and messages that have not ended.
    pub fn open_calls(&self) -> usize {
        let messages = self.message_streams.iter().map(MessageStream::open_messages);
        self.calls.len() + messages.sum::<usize>()
    }

    /// Returns whether no stream is open.
    pub fn is_idle(&self) -> bool {
        self.calls.len() == 0 && self.message_streams.is_empty()
    }

    /// Sends a call or message. The caller checks that a slot is free.
    #[inline]
    pub fn send(&mut self, due_ns: u64, requests: &mut Requests) {
        if self.settings.messages > 0 {
            self.send_message(due_ns, requests);
            return;
        }
        let stream = self.calls.add(due_ns);
        self.writer.open_stream(stream, &self.settings.header_block);
        self.writer.send_message(stream, true, |out| requests.write(out));
        if self.calls.next_stream() > frames::STREAM_MAX - 2 {
            self.is_closing = true;
        }
    }

    /// Sends a message on the next message stream that can take one.
    fn send_message(&mut self, due_ns: u64, requests: &mut Requests) {
        for _ in 0..self.message_streams.len() {
            self.last_used = (self.last_used + 1) % self.message_streams.len();
            let open = &mut self.message_streams[self.last_used];
            if open.free_slots() > 0 && !self.writer.is_stream_blocked(open.stream) {
                let request_id = open.add(due_ns);
                self.writer.send_message(open.stream, false, |out| {
                    requests.write(out);
                    write_bytes(out, 6, &request_id);
                });
                return;
            }
        }
        self.unprocessed.push(due_ns);
    }

    /// Opens message streams until there are as many as wanted and allowed.
    fn open_message_streams(&mut self) {
        let wanted = self.settings.streams.min(self.streams_allowed);
        while self.settings.messages > 0 && !self.is_closing && self.message_streams.len() < wanted
        {
            self.writer.open_stream(self.next_stream, &self.settings.header_block);
            self.message_streams.push(MessageStream::new(self.next_stream, self.settings.messages));
            self.next_stream += 2;
        }
    }

    /// Sends no more calls, and ends the client's side of the message streams.
    pub fn finish(&mut self) {
        self.is_finishing = true;
        for open in &self.message_streams {
            self.writer.end_stream(open.stream);
        }
    }

    /// Cancels calls whose time is over.
    pub fn cancel_overdue(&mut self, results: &mut Results) {
        let before_ns = results.now_ns.saturating_sub(self.settings.timeout_ns);
        let is_overdue = |due_ns: u64| due_ns < before_ns;
        let message = "the call was not answered within --timeout-ms";
        while let Some((stream, _)) = self.calls.oldest().filter(|&(_, due_ns)| is_overdue(due_ns))
        {
            self.writer.reset_stream(stream, frames::CANCEL);
            self.fail(stream, results::DEADLINE_EXCEEDED, message, results);
        }
        // A message cannot be cancelled alone, so its stream is reset.
        let overdue: Vec<u32> = self
            .message_streams
            .iter()
            .filter(|open| open.oldest_due_ns().is_some_and(is_overdue))
            .map(|open| open.stream)
            .collect();
        for stream in overdue {
            self.writer.reset_stream(stream, frames::CANCEL);
            self.fail(stream, results::DEADLINE_EXCEEDED, message, results);
        }
    }

    /// Fails all open calls because the connection was lost.
    pub fn fail_all(&mut self, reason: &str, results: &mut Results) {
        self.is_closing = true;
        while let Some((stream, due_ns)) = self.calls.oldest() {
            self.calls.end(stream);
            results.add_failure(due_ns, results::UNAVAILABLE, reason);
        }
        for due_ns in self.message_streams.drain(..).flat_map(MessageStream::all_due_ns) {
            results.add_failure(due_ns, results::UNAVAILABLE, reason);
        }
    }
}
