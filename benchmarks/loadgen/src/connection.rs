//! The client's end of one HTTP/2 connection, without I/O: what to send, what came.

mod hearing;
#[cfg(test)]
mod tests;

use crate::bodies::Bodies;
use crate::frames;
use crate::hpack::Ending;
use crate::open_calls::{Lane, OpenCalls};
use crate::outgoing::Outgoing;
use crate::tally::{self, Tally, Times};
use std::collections::HashMap;
use std::sync::Arc;

/// What every connection of a run has in common.
#[derive(Debug)]
pub struct Manner {
    /// The header block of each call.
    pub block: Vec<u8>,
    /// Calls (or streams of messages) open at once.
    pub streams: usize,
    /// Messages open on each PredictStream; 0: unary calls.
    pub messages: usize,
    /// From when a call was due until it is given up.
    pub timeout_ns: u64,
}

pub struct Connection {
    manner: Arc<Manner>,
    pub out: Outgoing,
    calls: OpenCalls,
    lanes: Vec<Lane>,
    next_lane: usize,
    next_stream: u32,
    /// SETTINGS came; until then nothing is asked.
    pub greeted: bool,
    pub streams_allowed: usize,
    /// No new calls here: GOAWAY came, or the stream numbers are used up.
    pub leaving: bool,
    finishing: bool,
    /// When calls were due that the server never looked at; for another connection.
    pub again: Vec<u64>,
    rest: Vec<u8>,
    /// A header block whose CONTINUATIONs are to come: (stream, its HEADERS' flags, bytes).
    block: Option<(u32, u8, Vec<u8>)>,
    /// Messages longer than a frame, by stream.
    parts: HashMap<u32, Vec<u8>>,
    received: u64,
    /// The newest header block that ended a call, and what it says.
    known: (Vec<u8>, Ending),
}

impl Connection {
    pub fn new(manner: Arc<Manner>) -> Connection {
        Connection {
            manner,
            out: Outgoing::new(),
            calls: OpenCalls::new(),
            lanes: Vec::new(),
            next_lane: 0,
            next_stream: 1,
            greeted: false,
            streams_allowed: usize::MAX,
            leaving: false,
            finishing: false,
            again: Vec::new(),
            rest: Vec::new(),
            block: None,
            parts: HashMap::new(),
            received: 0,
            known: (Vec::new(), Ending::default()),
        }
    }

    /// How many calls or messages may be asked now.
    #[inline]
    pub fn room(&self) -> usize {
        if self.leaving || !self.greeted || self.finishing {
            0
        } else if self.manner.messages > 0 {
            let free =
                |lane: &Lane| lane.room() * usize::from(!self.out.stream_blocked(lane.stream));
            self.lanes.iter().map(free).sum()
        } else if self.out.blocked() {
            0
        } else {
            self.manner
                .streams
                .min(self.streams_allowed)
                .saturating_sub(self.calls.len())
        }
    }

    /// Calls and messages without an end.
    pub fn open(&self) -> usize {
        self.calls.len() + self.lanes.iter().map(Lane::open).sum::<usize>()
    }

    /// Nothing is open, streams included.
    pub fn idle(&self) -> bool {
        self.calls.len() == 0 && self.lanes.is_empty()
    }

    /// Ask one; only where there is room.
    #[inline]
    pub fn ask(&mut self, times: Times, bodies: &mut Bodies) {
        if self.manner.messages > 0 {
            self.ask_lane(times, bodies);
            return;
        }
        let stream = self.calls.open(times);
        self.out
            .call(stream, &self.manner.block, |out| bodies.write(out));
        if self.calls.next_stream() > frames::STREAM_MAX - 2 {
            self.leaving = true;
        }
    }

    fn ask_lane(&mut self, times: Times, bodies: &mut Bodies) {
        for _ in 0..self.lanes.len() {
            self.next_lane = (self.next_lane + 1) % self.lanes.len();
            let lane = &mut self.lanes[self.next_lane];
            if lane.room() > 0 && !self.out.stream_blocked(lane.stream) {
                let request_id = lane.ask(times);
                self.out.message(lane.stream, |out| {
                    bodies.write(out);
                    out.extend_from_slice(&[6 << 3 | 2, request_id.len() as u8]);
                    out.extend_from_slice(&request_id);
                });
                return;
            }
        }
        self.again.push(times.due_ns);
    }

    /// Open as many streams of messages as are missing.
    fn open_lanes(&mut self) {
        let wanted = self.manner.streams.min(self.streams_allowed);
        while self.manner.messages > 0 && !self.leaving && self.lanes.len() < wanted {
            self.out.open(self.next_stream, &self.manner.block);
            self.lanes
                .push(Lane::new(self.next_stream, self.manner.messages));
            self.next_stream += 2;
        }
    }

    /// Ask no more; streams of messages end once theirs are answered.
    pub fn finish(&mut self) {
        self.finishing = true;
        for lane in &self.lanes {
            self.out.finish(lane.stream);
        }
    }

    /// Give up what has had its time.
    pub fn give_up(&mut self, now_ns: u64, tally: &mut Tally) {
        let overdue = |due_ns: u64| due_ns + self.manner.timeout_ns < now_ns;
        let words = "not answered in time (--timeout-ms)";
        while let Some((stream, times)) = self.calls.oldest() {
            if !overdue(times.due_ns) {
                break;
            }
            self.calls.end(stream);
            self.parts.remove(&stream);
            self.out.reset(stream, frames::CANCEL);
            tally.fail(times, now_ns, tally::DEADLINE_EXCEEDED, words);
        }
        let late: Vec<u32> = self
            .lanes
            .iter()
            .filter(|lane| lane.oldest_due_ns().is_some_and(overdue))
            .map(|lane| lane.stream)
            .collect();
        for stream in late {
            self.out.reset(stream, frames::CANCEL);
            self.end(stream, tally::DEADLINE_EXCEEDED, words, now_ns, tally);
        }
    }

    /// The connection is gone, and with it all that was open.
    pub fn lost(&mut self, why: &str, now_ns: u64, tally: &mut Tally) {
        while let Some((stream, times)) = self.calls.oldest() {
            self.calls.end(stream);
            tally.fail(times, now_ns, tally::UNAVAILABLE, why);
        }
        for lane in &mut self.lanes {
            for times in lane.drain() {
                tally.fail(times, now_ns, tally::UNAVAILABLE, why);
            }
        }
        self.lanes.clear();
        self.leaving = true;
    }
}
