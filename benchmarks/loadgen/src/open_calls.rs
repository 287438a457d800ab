//! The calls and messages of one connection that have not ended.

use crate::results::ReplySummary;
use std::collections::VecDeque;

#[derive(Clone, Copy)]
enum State {
    Sent,
    Answered(ReplySummary),
    Ended,
}

/// Unary calls by stream number. The numbers are 1, 3, 5 ..., so a queue finds each at once.
#[derive(Default)]
pub struct OpenCalls {
    /// Stream numbers below `2 * removed + 1` have ended and were removed from the queue.
    removed: u32,
    /// When each call was due, and its state.
    calls: VecDeque<(u64, State)>,
    open: usize,
}

impl OpenCalls {
    pub fn len(&self) -> usize {
        self.open
    }

    /// Returns the stream number of the next call.
    pub fn next_stream(&self) -> u32 {
        2 * (self.removed + self.calls.len() as u32) + 1
    }

    /// Adds a call. Returns its stream number.
    #[inline]
    pub fn add(&mut self, due_ns: u64) -> u32 {
        let stream = self.next_stream();
        self.calls.push_back((due_ns, State::Sent));
        self.open += 1;
        stream
    }

    #[inline]
    fn find(&mut self, stream: u32) -> Option<&mut (u64, State)> {
        let place = (stream.checked_sub(1)? / 2).checked_sub(self.removed)?;
        self.calls.get_mut(place as usize)
    }

    /// Keeps the reply of a call until its trailers arrive.
    #[inline]
    pub fn keep_reply(&mut self, stream: u32, summary: ReplySummary) {
        if let Some((_, state)) = self.find(stream)
            && !matches!(state, State::Ended)
        {
            *state = State::Answered(summary);
        }
    }

    /// Ends a call. Returns when it was due, and its reply if one arrived. Returns None if no such
    /// call is open.
    #[inline]
    pub fn end(&mut self, stream: u32) -> Option<(u64, Option<ReplySummary>)> {
        let call = self.find(stream)?;
        let reply = match call.1 {
            State::Ended => return None,
            State::Sent => None,
            State::Answered(summary) => Some(summary),
        };
        let due_ns = call.0;
        call.1 = State::Ended;
        self.open -= 1;
        while let Some((_, State::Ended)) = self.calls.front() {
            self.calls.pop_front();
            self.removed += 1;
        }
        Some((due_ns, reply))
    }

    /// Returns the stream number of the oldest open call, and when the call was due.
    pub fn oldest(&self) -> Option<(u32, u64)> {
        self.calls.front().map(|(due_ns, _)| (2 * self.removed + 1, *due_ns))
    }

    /// Returns the stream numbers of open calls above `last_stream`.
    pub fn above(&self, last_stream: u32) -> Vec<u32> {
        (self.removed..)
            .zip(&self.calls)
            .filter(|(_, (_, state))| !matches!(state, State::Ended))
            .map(|(place, _)| 2 * place + 1)
            .filter(|&stream| stream > last_stream)
            .collect()
    }
}

/// An open PredictStream. It has a fixed number of slots for unanswered messages. A message's
/// request_id is the number of its slot.
pub struct MessageStream {
    pub stream: u32,
    /// When the message in each slot was due. None: the slot is free.
    slots: Vec<Option<u64>>,
    free: Vec<u16>,
    /// Bytes received since the last WINDOW_UPDATE.
    pub received: u64,
}

const REQUEST_ID_BYTES: usize = 4;

impl MessageStream {
    pub fn new(stream: u32, slots: usize) -> MessageStream {
        let free = (0..slots as u16).rev().collect();
        MessageStream { stream, slots: vec![None; slots], free, received: 0 }
    }

    pub fn free_slots(&self) -> usize {
        self.free.len()
    }

    pub fn open_messages(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a free slot for a message. Returns the message's request_id, four hexadecimal digits.
    #[inline]
    pub fn add(&mut self, due_ns: u64) -> [u8; REQUEST_ID_BYTES] {
        let slot = self.free.pop().expect("the caller checks that a slot is free");
        self.slots[slot as usize] = Some(due_ns);
        [12, 8, 4, 0].map(|shift| b"0123456789abcdef"[(slot >> shift & 15) as usize])
    }

    /// Frees the slot of an answered message. Returns when the message was due, or None if no such
    /// message is open.
    #[inline]
    pub fn end(&mut self, request_id: &[u8]) -> Option<u64> {
        let digits: &[u8; REQUEST_ID_BYTES] = request_id.try_into().ok()?;
        let slot = u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        let due_ns = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        Some(due_ns)
    }

    /// Returns when the oldest open message was due.
    pub fn oldest_due_ns(&self) -> Option<u64> {
        self.slots.iter().flatten().copied().min()
    }

    /// Returns when each open message was due.
    pub fn all_due_ns(self) -> Vec<u64> {
        self.slots.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_calls_end_in_any_order_and_only_once() {
        let mut calls = OpenCalls::default();
        let streams: Vec<u32> = (0..5).map(|due_ns| calls.add(due_ns)).collect();
        assert_eq!(streams, [1, 3, 5, 7, 9]);
        calls.keep_reply(3, ReplySummary::default());
        assert!(matches!(calls.end(3), Some((1, Some(_)))));
        calls.keep_reply(3, ReplySummary::default());
        assert!(calls.end(3).is_none());
        assert_eq!(calls.oldest(), Some((1, 0)));
        assert!(matches!(calls.end(1), Some((0, None))));
        assert_eq!(calls.oldest(), Some((5, 2)));
        assert_eq!((calls.len(), calls.next_stream()), (3, 11));
        assert_eq!(calls.above(5), [7, 9]);
        assert!(calls.end(1).is_none() && calls.end(11).is_none());
    }

    #[test]
    fn message_stream_finds_its_messages_by_request_id() {
        let mut stream = MessageStream::new(1, 300);
        let ids: Vec<_> = (0..300).map(|due_ns| stream.add(due_ns)).collect();
        assert_eq!((stream.free_slots(), stream.open_messages(), &ids[255]), (0, 300, b"00ff"));
        assert_eq!(stream.end(b"0010"), Some(16));
        assert!([&b"0010"[..], b"ffff", b""].iter().all(|id| stream.end(id).is_none()));
        assert_eq!((stream.free_slots(), stream.oldest_due_ns()), (1, Some(0)));
        assert_eq!(stream.all_due_ns().len(), 299);
    }
}
