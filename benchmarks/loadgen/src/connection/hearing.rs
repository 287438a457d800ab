//! What the server sends, taken apart and handed to whom it concerns.

use super::Connection;
use crate::frames::{self, Head};
use crate::hpack;
use crate::replies;
use crate::tally::{self, Tally, Times};

/// Received on a window before it is granted anew.
const GRANT_BYTES: u64 = 1 << 30;
const BLOCK_BYTES_MAX: usize = 1 << 20;
const MESSAGE_BYTES_MAX: usize = 64 << 20;
const COMPRESSED: &str = "a compressed message, though no compression was offered";

impl Connection {
    /// Take what was received. An error ends the connection.
    pub fn hear(&mut self, bytes: &[u8], now_ns: u64, tally: &mut Tally) -> Result<(), String> {
        if self.rest.is_empty() {
            let used = self.take_frames(bytes, now_ns, tally)?;
            self.rest.extend_from_slice(&bytes[used..]);
        } else {
            let mut whole = std::mem::take(&mut self.rest);
            whole.extend_from_slice(bytes);
            let used = self.take_frames(&whole, now_ns, tally)?;
            whole.drain(..used);
            self.rest = whole;
        }
        if self.received > GRANT_BYTES {
            let more = self.received as u32;
            frames::number(&mut self.out.bytes, frames::WINDOW_UPDATE, 0, more);
            self.received = 0;
        }
        Ok(())
    }

    fn take_frames(
        &mut self,
        bytes: &[u8],
        now_ns: u64,
        tally: &mut Tally,
    ) -> Result<usize, String> {
        let mut at = 0;
        while let Some(head) = Head::read(&bytes[at..]) {
            if head.length > frames::PAYLOAD_BYTES_MAX {
                return Err(format!(
                    "a frame of {} bytes (16,384 are allowed): is this an HTTP/2 server?",
                    head.length
                ));
            }
            let start = at + frames::HEAD_BYTES;
            let Some(payload) = bytes.get(start..start + head.length) else {
                break;
            };
            self.take_frame(head, payload, now_ns, tally)?;
            at = start + head.length;
        }
        Ok(at)
    }

    #[inline]
    fn take_frame(
        &mut self,
        head: Head,
        payload: &[u8],
        now_ns: u64,
        tally: &mut Tally,
    ) -> Result<(), String> {
        if self.block.is_some() && head.kind != frames::CONTINUATION {
            return Err("another frame in the middle of a header block".into());
        }
        match head.kind {
            frames::DATA => {
                self.received += payload.len() as u64;
                let data =
                    frames::unpadded(head, payload).ok_or("a DATA frame that is all padding")?;
                self.take_data(head.stream, data, now_ns, tally);
                if head.flags & frames::END_STREAM != 0 {
                    let words = "the stream ended without grpc-status: no gRPC server";
                    self.end(head.stream, tally::UNKNOWN, words, now_ns, tally);
                }
            }
            frames::HEADERS => {
                let block =
                    frames::unpadded(head, payload).ok_or("a HEADERS frame that is all padding")?;
                if head.flags & frames::END_HEADERS == 0 {
                    self.block = Some((head.stream, head.flags, block.to_vec()));
                } else if head.flags & frames::END_STREAM != 0 {
                    self.take_ending(head.stream, block, now_ns, tally)?;
                }
            }
            frames::CONTINUATION => self.take_continuation(head, payload, now_ns, tally)?,
            frames::RST_STREAM => self.take_reset(head.stream, payload, now_ns, tally),
            frames::SETTINGS if head.flags & frames::ACK == 0 => self.take_settings(payload),
            frames::PING if head.flags & frames::ACK == 0 => {
                frames::frame(&mut self.out.bytes, frames::PING, frames::ACK, 0, payload)
            }
            frames::GOAWAY => self.take_goaway(payload, tally),
            frames::WINDOW_UPDATE => self
                .out
                .granted(head.stream, frames::u32_at(payload, 0) & frames::WINDOW_MAX)?,
            frames::PUSH_PROMISE => return Err("a push, though we allow none".into()),
            _ => {}
        }
        Ok(())
    }

    /// Some bytes of a stream: most often one message, whole.
    #[inline]
    fn take_data(&mut self, stream: u32, data: &[u8], now_ns: u64, tally: &mut Tally) {
        if self.parts.is_empty() && data.len() >= 5 {
            let length = frames::u32_at(data, 1) as usize;
            if length == data.len() - 5 {
                self.take_message(stream, data[0], &data[5..], now_ns, tally);
                return;
            }
        }
        let mut whole = self.parts.remove(&stream).unwrap_or_default();
        whole.extend_from_slice(data);
        let mut at = 0;
        while whole.len() - at >= 5 {
            let length = frames::u32_at(&whole, at + 1) as usize;
            if length > MESSAGE_BYTES_MAX {
                self.out.reset(stream, frames::CANCEL);
                let words = format!("a message of {length} bytes");
                self.end(stream, tally::RESOURCE_EXHAUSTED, &words, now_ns, tally);
                return;
            }
            let Some(message) = whole.get(at + 5..at + 5 + length) else {
                break;
            };
            let (compressed, message) = (whole[at], message.to_vec());
            self.take_message(stream, compressed, &message, now_ns, tally);
            at += 5 + length;
        }
        whole.drain(..at);
        if !whole.is_empty() {
            self.parts.insert(stream, whole);
        }
    }

    #[inline]
    fn take_message(
        &mut self,
        stream: u32,
        compressed: u8,
        message: &[u8],
        now_ns: u64,
        tally: &mut Tally,
    ) {
        if compressed != 0 {
            self.out.reset(stream, frames::CANCEL);
            self.end(stream, tally::INTERNAL, COMPRESSED, now_ns, tally);
        } else if self.manner.messages == 0 {
            let heard = tally.hear(message);
            self.calls.heard(stream, heard);
        } else if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.stream == stream) {
            lane.received += message.len() as u64 + 14;
            if lane.received > GRANT_BYTES {
                let more = lane.received as u32;
                frames::number(&mut self.out.bytes, frames::WINDOW_UPDATE, stream, more);
                lane.received = 0;
            }
            let told = replies::streamed(message);
            if let Some(times) = lane.answered(told.request_id) {
                match told.result {
                    Ok(reply) => {
                        let heard = tally.hear(reply);
                        tally.answer(times, now_ns, heard);
                    }
                    Err((code, words)) => tally.fail(times, now_ns, code, &words),
                }
            }
        }
    }

    fn take_continuation(
        &mut self,
        head: Head,
        payload: &[u8],
        now_ns: u64,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let (stream, flags, mut block) = self.block.take().ok_or("a CONTINUATION of nothing")?;
        block.extend_from_slice(payload);
        if stream != head.stream || block.len() > BLOCK_BYTES_MAX {
            return Err(format!(
                "a header block of {} bytes, or of two streams",
                block.len()
            ));
        }
        if head.flags & frames::END_HEADERS == 0 {
            self.block = Some((stream, flags, block));
        } else if flags & frames::END_STREAM != 0 {
            self.take_ending(stream, &block, now_ns, tally)?;
        }
        Ok(())
    }

    /// A call's last header block.
    #[inline]
    fn take_ending(
        &mut self,
        stream: u32,
        block: &[u8],
        now_ns: u64,
        tally: &mut Tally,
    ) -> Result<(), String> {
        if self.known.0 != block {
            self.known = (block.to_vec(), hpack::decode(block)?);
        }
        let ending = &self.known.1;
        if ending.grpc == Some(0) && self.manner.messages == 0 {
            match self.calls.end(stream) {
                Some((times, Some(heard))) => tally.answer(times, now_ns, heard),
                Some((times, None)) => {
                    tally.fail(times, now_ns, tally::INTERNAL, "OK, without a message")
                }
                None => {}
            }
            self.out.forget(stream);
            return Ok(());
        }
        let (code, words) = match (ending.grpc, ending.http) {
            (Some(code), _) => (code, ending.words.clone()),
            (None, http) => (
                of_http(http),
                format!("HTTP status {}, no grpc-status", http.unwrap_or(0)),
            ),
        };
        self.end(stream, code, &words, now_ns, tally);
        Ok(())
    }

    fn take_reset(&mut self, stream: u32, payload: &[u8], now_ns: u64, tally: &mut Tally) {
        let code = frames::u32_at(payload, 0);
        if code == frames::REFUSED_STREAM {
            self.unseen(stream, tally);
            return;
        }
        let status = match code {
            frames::CANCEL => tally::CANCELLED,
            frames::ENHANCE_YOUR_CALM => tally::RESOURCE_EXHAUSTED,
            frames::INADEQUATE_SECURITY => 7,
            frames::NO_ERROR => tally::UNKNOWN,
            _ => tally::INTERNAL,
        };
        self.end(
            stream,
            status,
            &format!("RST_STREAM with code {code}"),
            now_ns,
            tally,
        );
    }

    /// A call or stream ended, and not with an answer to a call.
    pub(super) fn end(
        &mut self,
        stream: u32,
        code: u32,
        words: &str,
        now_ns: u64,
        tally: &mut Tally,
    ) {
        self.out.forget(stream);
        self.parts.remove(&stream);
        if let Some((times, _)) = self.calls.end(stream) {
            tally.fail(times, now_ns, code, words);
        }
        let Some(place) = self.lanes.iter().position(|lane| lane.stream == stream) else {
            return;
        };
        for times in self.lanes.swap_remove(place).drain() {
            // A leaving server answers what it took and ends the stream so; the rest is asked again.
            if code == tally::UNAVAILABLE {
                tally.sent_again += 1;
                self.again.push(times.due_ns);
            } else {
                tally.fail(times, now_ns, code, words);
            }
        }
        if !self.finishing {
            self.open_lanes();
        }
    }

    /// The server says that it never looked at a stream.
    fn unseen(&mut self, stream: u32, tally: &mut Tally) {
        self.out.forget(stream);
        let mut times: Vec<Times> = self
            .calls
            .end(stream)
            .map(|(times, _)| times)
            .into_iter()
            .collect();
        if let Some(place) = self.lanes.iter().position(|lane| lane.stream == stream) {
            times.extend(self.lanes.swap_remove(place).drain());
        }
        tally.sent_again += times.len() as u64;
        self.again.extend(times.iter().map(|times| times.due_ns));
    }

    fn take_settings(&mut self, payload: &[u8]) {
        for (name, value) in frames::settings(payload) {
            if name == frames::SET_STREAMS {
                self.streams_allowed = value as usize;
            }
            self.out.settle(name, value);
        }
        self.greeted = true;
        frames::frame(&mut self.out.bytes, frames::SETTINGS, frames::ACK, 0, &[]);
        self.open_lanes();
    }

    fn take_goaway(&mut self, payload: &[u8], tally: &mut Tally) {
        self.leaving = true;
        let last_stream = frames::u32_at(payload, 0) & frames::STREAM_MAX;
        for stream in self.calls.above(last_stream) {
            self.unseen(stream, tally);
        }
        let lanes: Vec<u32> = self.lanes.iter().map(|lane| lane.stream).collect();
        for stream in lanes {
            if stream > last_stream {
                self.unseen(stream, tally);
            } else {
                self.out.finish(stream);
            }
        }
    }
}

/// The gRPC code of a response that has none, as the gRPC specification maps them.
fn of_http(status: Option<u16>) -> u32 {
    match status {
        Some(400) => tally::INTERNAL,
        Some(401) => 16,
        Some(403) => 7,
        Some(404) => 12,
        Some(429 | 502 | 503 | 504) => tally::UNAVAILABLE,
        _ => tally::UNKNOWN,
    }
}
