//! Frames that arrive from the server.

use super::Connection;
use crate::http2::frame_writer::GRPC_HEADER_BYTES;
use crate::http2::frames::{self, Frame, FrameHeader};
use crate::http2::hpack;
use crate::open_calls::MessageStream;
use crate::replies::StreamReply;
use crate::results::{self, Results};

/// A window is enlarged again after this many bytes arrived.
const WINDOW_UPDATE_BYTES: u64 = 1 << 30;
const HEADER_BLOCK_BYTES_MAX: usize = 1 << 20;
const MESSAGE_BYTES_MAX: usize = 64 << 20;

impl Connection {
    /// Handles bytes from the socket. After an error the connection is unusable.
    pub fn receive(&mut self, bytes: &[u8], results: &mut Results) -> Result<(), String> {
        if self.partial_frame.is_empty() {
            let rest = self.receive_frames(bytes, results)?;
            self.partial_frame.extend_from_slice(rest);
        } else {
            // Complete the frame whose beginning arrived before.
            let mut joined = std::mem::take(&mut self.partial_frame);
            joined.extend_from_slice(bytes);
            let rest = self.receive_frames(&joined, results)?.len();
            joined.drain(..joined.len() - rest);
            self.partial_frame = joined;
        }
        if self.received > WINDOW_UPDATE_BYTES {
            let increment = self.received as u32;
            frames::append_u32(&mut self.writer.bytes, frames::WINDOW_UPDATE, 0, increment);
            self.received = 0;
        }
        Ok(())
    }

    /// Handles all complete frames. Returns the bytes after the last of them.
    fn receive_frames<'a>(
        &mut self,
        bytes: &'a [u8],
        results: &mut Results,
    ) -> Result<&'a [u8], String> {
        let mut rest = bytes;
        while let Some(header) = FrameHeader::read(rest) {
            if header.length > frames::PAYLOAD_BYTES_MAX {
                return Err(format!(
                    "the server sent a frame of {} bytes, 16,384 are allowed: is it an HTTP/2 server?",
                    header.length
                ));
            }
            let Some(frame) = Frame::split_off(&mut rest) else { break };
            self.receive_frame(frame, results)?;
        }
        Ok(rest)
    }

    #[inline]
    fn receive_frame(&mut self, frame: Frame<'_>, results: &mut Results) -> Result<(), String> {
        let Frame { kind, flags, stream, payload } = frame;
        if self.partial_block.is_some() && kind != frames::CONTINUATION {
            return Err("the server sent another frame inside a header block".into());
        }
        match kind {
            frames::DATA => {
                self.received += payload.len() as u64;
                self.receive_data(stream, frame.content()?, results);
                if frame.has(frames::END_STREAM) {
                    let message = "the stream ended without grpc-status: is it a gRPC server?";
                    self.fail(stream, results::UNKNOWN, message, results);
                }
            }
            frames::HEADERS => {
                self.receive_block(stream, flags, flags, frame.content()?, results)?;
            }
            frames::CONTINUATION => {
                let (first_stream, first_flags, mut block) =
                    self.partial_block.take().ok_or("a CONTINUATION continues no header block")?;
                block.extend_from_slice(payload);
                if first_stream != stream || block.len() > HEADER_BLOCK_BYTES_MAX {
                    return Err("a header block belongs to two streams or exceeds 1 MB".into());
                }
                self.receive_block(stream, first_flags, flags, &block, results)?;
            }
            frames::RST_STREAM => self.receive_reset(stream, payload, results),
            frames::SETTINGS if !frame.has(frames::ACK) => self.receive_settings(payload),
            frames::PING if !frame.has(frames::ACK) => {
                frames::append(&mut self.writer.bytes, frames::PING, frames::ACK, 0, payload);
            }
            frames::GOAWAY => self.receive_goaway(payload, results),
            frames::WINDOW_UPDATE => {
                let increment = frames::u32_at(payload, 0) & frames::WINDOW_MAX;
                self.writer.enlarge_window(stream, increment)?;
            }
            frames::PUSH_PROMISE => return Err("the server pushes, although it may not".into()),
            _ => {}
        }
        Ok(())
    }

    /// Handles bytes of a stream. Mostly they are one complete message.
    #[inline]
    fn receive_data(&mut self, stream: u32, data: &[u8], results: &mut Results) {
        if self.partial_messages.is_empty()
            && let Some((compressed, message, [])) = split_message(data)
        {
            self.receive_message(stream, compressed, message, results);
            return;
        }
        // Otherwise complete a message whose beginning arrived before.
        let mut joined = self.partial_messages.remove(&stream).unwrap_or_default();
        joined.extend_from_slice(data);
        let mut rest = &joined[..];
        while let Some((compressed, message, after)) = split_message(rest) {
            self.receive_message(stream, compressed, message, results);
            rest = after;
        }
        let length = frames::u32_at(rest, 1) as usize;
        if length > MESSAGE_BYTES_MAX {
            self.writer.reset_stream(stream, frames::CANCEL);
            let message = format!("the reply has {length} bytes, at most 64 MB are accepted");
            self.fail(stream, results::RESOURCE_EXHAUSTED, &message, results);
        } else if !rest.is_empty() {
            self.partial_messages.insert(stream, rest.to_vec());
        }
    }

    /// Handles one complete message of a reply.
    #[inline]
    fn receive_message(
        &mut self,
        stream: u32,
        compressed: bool,
        message: &[u8],
        results: &mut Results,
    ) {
        if compressed {
            self.writer.reset_stream(stream, frames::CANCEL);
            let message = "the reply is compressed, although the call does not accept it";
            self.fail(stream, results::INTERNAL, message, results);
            return;
        }
        if self.settings.messages == 0 {
            let summary = results.summarize(message);
            self.calls.keep_reply(stream, summary);
            return;
        }
        let Some(open) = self.message_streams.iter_mut().find(|open| open.stream == stream) else {
            return;
        };
        open.received += message.len() as u64 + 14;
        if open.received > WINDOW_UPDATE_BYTES {
            let increment = open.received as u32;
            frames::append_u32(&mut self.writer.bytes, frames::WINDOW_UPDATE, stream, increment);
            open.received = 0;
        }
        let reply = StreamReply::read(message);
        if let Some(due_ns) = open.end(reply.request_id) {
            match reply.result {
                Ok(reply) => {
                    let summary = results.summarize(reply);
                    results.add_answer(due_ns, summary);
                }
                Err((code, message)) => results.add_failure(due_ns, code, &message),
            }
        }
    }

    /// Handles a header block, or its beginning. `first_flags` are those of its HEADERS frame,
    /// `last_flags` those of its newest frame.
    #[inline]
    fn receive_block(
        &mut self,
        stream: u32,
        first_flags: u8,
        last_flags: u8,
        block: &[u8],
        results: &mut Results,
    ) -> Result<(), String> {
        if last_flags & frames::END_HEADERS == 0 {
            self.partial_block = Some((stream, first_flags, block.to_vec()));
        } else if first_flags & frames::END_STREAM != 0 {
            self.receive_trailers(stream, block, results)?;
        }
        Ok(())
    }

    /// Handles the last header block of a call.
    #[inline]
    fn receive_trailers(
        &mut self,
        stream: u32,
        block: &[u8],
        results: &mut Results,
    ) -> Result<(), String> {
        if self.last_trailers.0 != block {
            self.last_trailers = (block.to_vec(), hpack::decode(block)?);
        }
        let trailers = &self.last_trailers.1;
        // A unary call that was answered: by far the most frequent case.
        if trailers.grpc_status == Some(0) && self.settings.messages == 0 {
            match self.calls.end(stream) {
                Some((due_ns, Some(reply))) => results.add_answer(due_ns, reply),
                Some((due_ns, None)) => {
                    let message = "the call ended with OK, but without a reply";
                    results.add_failure(due_ns, results::INTERNAL, message);
                }
                None => {}
            }
            self.writer.forget_stream(stream);
            return Ok(());
        }
        // Every other end of a call or message stream.
        let (code, message) = match trailers.grpc_status {
            Some(code) => (code, trailers.message.clone()),
            None => {
                let status = trailers.http_status.unwrap_or(0);
                let message = format!("the server answered HTTP status {status}, no grpc-status");
                (code_of_http_status(status), message)
            }
        };
        self.fail(stream, code, &message, results);
        Ok(())
    }

    fn receive_reset(&mut self, stream: u32, payload: &[u8], results: &mut Results) {
        let error_code = frames::u32_at(payload, 0);
        let code = match error_code {
            frames::REFUSED_STREAM => return self.retry(stream, results),
            frames::CANCEL => results::CANCELLED,
            frames::ENHANCE_YOUR_CALM => results::RESOURCE_EXHAUSTED,
            frames::INADEQUATE_SECURITY => results::PERMISSION_DENIED,
            frames::NO_ERROR => results::UNKNOWN,
            _ => results::INTERNAL,
        };
        let message = format!("the server reset the stream with error code {error_code}");
        self.fail(stream, code, &message, results);
    }

    fn receive_settings(&mut self, payload: &[u8]) {
        for (name, value) in frames::settings(payload) {
            if name == frames::MAX_CONCURRENT_STREAMS {
                self.streams_allowed = value as usize;
            }
            self.writer.apply_setting(name, value);
        }
        self.is_ready = true;
        frames::append(&mut self.writer.bytes, frames::SETTINGS, frames::ACK, 0, &[]);
        self.open_message_streams();
    }

    fn receive_goaway(&mut self, payload: &[u8], results: &mut Results) {
        self.is_closing = true;
        let last_stream = frames::u32_at(payload, 0) & frames::STREAM_MAX;
        for stream in self.calls.above(last_stream) {
            self.retry(stream, results);
        }
        let streams: Vec<u32> = self.message_streams.iter().map(|open| open.stream).collect();
        for stream in streams {
            if stream > last_stream {
                self.retry(stream, results);
            } else {
                self.writer.end_stream(stream);
            }
        }
    }

    /// Fails a call, or all open messages of a message stream.
    pub(super) fn fail(&mut self, stream: u32, code: u32, message: &str, results: &mut Results) {
        self.writer.forget_stream(stream);
        self.partial_messages.remove(&stream);
        if let Some((due_ns, _)) = self.calls.end(stream) {
            results.add_failure(due_ns, code, message);
        }
        let Some(open) = self.remove_message_stream(stream) else {
            return;
        };
        let due_ns = open.all_due_ns();
        if code == results::UNAVAILABLE {
            // A server that shuts down answers the messages it accepted and then ends the stream
            // with this code. It never processed the others.
            results.transparent_retries += due_ns.len() as u64;
            self.unprocessed.extend(due_ns);
        } else {
            for due_ns in due_ns {
                results.add_failure(due_ns, code, message);
            }
        }
        if !self.is_finishing {
            self.open_message_streams();
        }
    }

    /// Gives back the calls of a stream that the server never processed.
    fn retry(&mut self, stream: u32, results: &mut Results) {
        self.writer.forget_stream(stream);
        let mut due_ns: Vec<u64> =
            self.calls.end(stream).map(|(due_ns, _)| due_ns).into_iter().collect();
        if let Some(open) = self.remove_message_stream(stream) {
            due_ns.extend(open.all_due_ns());
        }
        results.transparent_retries += due_ns.len() as u64;
        self.unprocessed.extend(due_ns);
    }

    fn remove_message_stream(&mut self, stream: u32) -> Option<MessageStream> {
        let place = self.message_streams.iter().position(|open| open.stream == stream)?;
        Some(self.message_streams.swap_remove(place))
    }
}

/// Splits the first complete gRPC message off the front of `data`. Returns whether it is
/// compressed, the message, and the bytes after it.
#[inline]
fn split_message(data: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    let length = frames::u32_at(data, 1) as usize;
    let (message, rest) = data.get(GRPC_HEADER_BYTES..)?.split_at_checked(length)?;
    Some((data[0] != 0, message, rest))
}

/// Returns the gRPC code of a response without grpc-status, as the gRPC specification maps them.
fn code_of_http_status(status: u16) -> u32 {
    match status {
        400 => results::INTERNAL,
        401 => results::UNAUTHENTICATED,
        403 => results::PERMISSION_DENIED,
        404 => results::UNIMPLEMENTED,
        429 | 502 | 503 | 504 => results::UNAVAILABLE,
        _ => results::UNKNOWN,
    }
}
