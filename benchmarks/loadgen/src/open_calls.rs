//! The calls and streams of one connection that are not over.

use crate::tally::{Heard, Times};
use std::collections::VecDeque;

#[derive(Clone, Copy)]
enum State {
    Over,
    Asked,
    Answered(Heard),
}

/// Unary calls by stream number: streams are numbered 1, 3, 5 ..., so a queue finds each at once.
pub struct OpenCalls {
    first: u32,
    calls: VecDeque<(Times, State)>,
    open: usize,
}

impl OpenCalls {
    pub fn new() -> OpenCalls {
        OpenCalls {
            first: 1,
            calls: VecDeque::new(),
            open: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.open
    }

    /// The number the next call gets.
    pub fn next_stream(&self) -> u32 {
        self.first + 2 * self.calls.len() as u32
    }

    #[inline]
    pub fn open(&mut self, times: Times) -> u32 {
        let stream = self.next_stream();
        self.calls.push_back((times, State::Asked));
        self.open += 1;
        stream
    }

    #[inline]
    fn call(&mut self, stream: u32) -> Option<&mut (Times, State)> {
        let place = stream.checked_sub(self.first)? / 2;
        self.calls.get_mut(place as usize)
    }

    /// Its message came; false: there is no such call.
    #[inline]
    pub fn heard(&mut self, stream: u32, heard: Heard) -> bool {
        match self.call(stream) {
            Some((_, state)) if !matches!(state, State::Over) => {
                *state = State::Answered(heard);
                true
            }
            _ => false,
        }
    }

    /// It is over: its times and its message, if one came. None: it was over before.
    #[inline]
    pub fn end(&mut self, stream: u32) -> Option<(Times, Option<Heard>)> {
        let call = self.call(stream)?;
        let heard = match call.1 {
            State::Over => return None,
            State::Asked => None,
            State::Answered(heard) => Some(heard),
        };
        let times = call.0;
        call.1 = State::Over;
        self.open -= 1;
        while let Some((_, State::Over)) = self.calls.front() {
            self.calls.pop_front();
            self.first += 2;
        }
        Some((times, heard))
    }

    /// The oldest call that is open.
    pub fn oldest(&self) -> Option<(u32, Times)> {
        self.calls.front().map(|(times, _)| (self.first, *times))
    }

    /// Open calls above *last_stream*.
    pub fn above(&self, last_stream: u32) -> Vec<u32> {
        (0..self.calls.len())
            .filter(|&place| !matches!(self.calls[place].1, State::Over))
            .map(|place| self.first + 2 * place as u32)
            .filter(|&stream| stream > last_stream)
            .collect()
    }
}

/// One open PredictStream: which messages are unanswered. A message's number is its request_id.
pub struct Lane {
    pub stream: u32,
    messages: Vec<Option<Times>>,
    free: Vec<u16>,
    pub received: u64,
}

pub const REQUEST_ID_BYTES: usize = 4;

impl Lane {
    pub fn new(stream: u32, messages: usize) -> Lane {
        let free = (0..messages as u16).rev().collect();
        Lane {
            stream,
            messages: vec![None; messages],
            free,
            received: 0,
        }
    }

    pub fn room(&self) -> usize {
        self.free.len()
    }

    pub fn open(&self) -> usize {
        self.messages.len() - self.free.len()
    }

    /// Take a place; returns the request_id. Only where there is room.
    #[inline]
    pub fn ask(&mut self, times: Times) -> [u8; REQUEST_ID_BYTES] {
        let place = self.free.pop().expect("the caller looked for room");
        self.messages[place as usize] = Some(times);
        let mut rest = place;
        let mut text = [b'0'; REQUEST_ID_BYTES];
        for digit in text.iter_mut().rev() {
            *digit = b"0123456789abcdef"[(rest & 15) as usize];
            rest >>= 4;
        }
        text
    }

    /// The message with this request_id was answered. None: no such message is open.
    #[inline]
    pub fn answered(&mut self, request_id: &[u8]) -> Option<Times> {
        if request_id.len() != REQUEST_ID_BYTES {
            return None;
        }
        let text = std::str::from_utf8(request_id).ok()?;
        let place = u16::from_str_radix(text, 16).ok()?;
        let times = self.messages.get_mut(place as usize)?.take()?;
        self.free.push(place);
        Some(times)
    }

    /// When the oldest open message was due.
    pub fn oldest_due_ns(&self) -> Option<u64> {
        self.messages
            .iter()
            .flatten()
            .map(|times| times.due_ns)
            .min()
    }

    /// Take out all that is open.
    pub fn drain(&mut self) -> Vec<Times> {
        self.free = (0..self.messages.len() as u16).rev().collect();
        self.messages.iter_mut().filter_map(Option::take).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(due_ns: u64) -> Times {
        Times {
            due_ns,
            sent_ns: due_ns,
        }
    }

    #[test]
    fn calls_end_in_any_order_and_once() {
        let mut calls = OpenCalls::new();
        let streams: Vec<u32> = (0..5).map(|due_ns| calls.open(at(due_ns))).collect();
        assert_eq!(streams, [1, 3, 5, 7, 9]);
        assert!(calls.heard(3, Heard::default()));
        assert!(matches!(
            calls.end(3),
            Some((Times { due_ns: 1, .. }, Some(_)))
        ));
        assert!(calls.end(3).is_none() && !calls.heard(3, Heard::default()));
        assert_eq!(calls.oldest().unwrap().0, 1);
        assert!(matches!(
            calls.end(1),
            Some((Times { due_ns: 0, .. }, None))
        ));
        assert_eq!(calls.oldest().unwrap().0, 5);
        assert_eq!((calls.len(), calls.next_stream()), (3, 11));
        assert_eq!(calls.above(5), [7, 9]);
        assert!(calls.end(1).is_none() && calls.end(11).is_none());
    }

    #[test]
    fn a_lane_tells_its_messages_apart() {
        let mut lane = Lane::new(1, 300);
        let ids: Vec<_> = (0..300).map(|due_ns| lane.ask(at(due_ns))).collect();
        assert_eq!((lane.room(), lane.open(), &ids[255]), (0, 300, b"00ff"));
        assert_eq!(lane.answered(b"0010").unwrap().due_ns, 16);
        assert!(lane.answered(b"0010").is_none());
        assert!(lane.answered(b"ffff").is_none() && lane.answered(b"").is_none());
        assert_eq!(lane.oldest_due_ns(), Some(0));
        assert_eq!((lane.drain().len(), lane.room()), (299, 300));
    }
}
