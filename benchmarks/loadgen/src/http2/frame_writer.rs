//! The frames that one connection sends, within the flow-control windows of the server.

use crate::http2::frames::{self, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM};

/// A stream that stays open for more messages, or whose bytes wait for a window.
struct OpenStream {
    stream: u32,
    window: i64,
    /// Bytes to be sent. The first `sent` of them were sent already.
    body: Vec<u8>,
    sent: usize,
    /// No message follows, so the last frame ends the stream.
    last: bool,
}

impl OpenStream {
    fn is_blocked(&self) -> bool {
        self.sent < self.body.len()
    }
}

pub struct FrameWriter {
    /// Bytes to be written to the socket. The owner of the connection removes what was written.
    pub bytes: Vec<u8>,
    /// What the server may still be sent on this connection, bytes.
    window: i64,
    /// The window of a new stream, bytes.
    initial_window: i64,
    payload_max: usize,
    /// Streams on which more is to be sent.
    streams: Vec<OpenStream>,
}

/// Length of the header before a gRPC message: one byte for compression, four for the length.
pub const GRPC_HEADER_BYTES: usize = 5;

impl FrameWriter {
    /// Begins with the preface and this client's settings: no header table, no pushes, and the
    /// largest windows for the server's answers.
    pub fn new() -> FrameWriter {
        let mut bytes = frames::PREFACE.to_vec();
        let mut payload = Vec::new();
        for (name, value) in [
            (frames::HEADER_TABLE_SIZE, 0),
            (frames::ENABLE_PUSH, 0),
            (frames::INITIAL_WINDOW_SIZE, frames::WINDOW_MAX),
        ] {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&u32::to_be_bytes(value));
        }
        frames::append(&mut bytes, frames::SETTINGS, 0, 0, &payload);
        let increment = frames::WINDOW_MAX - frames::WINDOW_DEFAULT as u32;
        frames::append_u32(&mut bytes, frames::WINDOW_UPDATE, 0, increment);
        FrameWriter {
            bytes,
            window: frames::WINDOW_DEFAULT,
            initial_window: frames::WINDOW_DEFAULT,
            payload_max: frames::PAYLOAD_BYTES_MAX,
            streams: Vec::new(),
        }
    }

    #[inline]
    fn find(&self, stream: u32) -> Option<usize> {
        self.streams.iter().position(|open| open.stream == stream)
    }

    /// Returns whether any message waits for a window.
    pub fn is_blocked(&self) -> bool {
        self.streams.iter().any(OpenStream::is_blocked)
    }

    /// Returns whether a message of this stream waits for a window.
    pub fn is_stream_blocked(&self, stream: u32) -> bool {
        self.streams.iter().any(|open| open.stream == stream && open.is_blocked())
    }

    /// Opens a stream for messages that follow.
    #[inline]
    pub fn open_stream(&mut self, stream: u32, header_block: &[u8]) {
        frames::append(&mut self.bytes, HEADERS, END_HEADERS, stream, header_block);
        let (window, body) = (self.initial_window, Vec::new());
        self.streams.push(OpenStream { stream, window, body, sent: 0, last: false });
    }

    /// Sends a message of an open stream. `last` ends the client's side of the stream after it.
    #[inline]
    pub fn send_message(&mut self, stream: u32, last: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(place) = self.find(stream) else { return };
        // Write the message as one DATA frame.
        let start = self.bytes.len();
        let body = start + frames::HEADER_BYTES;
        self.bytes.resize(body + GRPC_HEADER_BYTES, 0);
        write(&mut self.bytes);
        let length = self.bytes.len() - body;
        let message_length = (length - GRPC_HEADER_BYTES) as u32;
        self.bytes[body + 1..][..4].copy_from_slice(&message_length.to_be_bytes());
        let flags = if last { END_STREAM } else { 0 };
        let header = frames::FrameHeader { length, kind: DATA, flags, stream };
        self.bytes[start..body].copy_from_slice(&header.bytes());

        // Nearly always the frame and the windows are large enough.
        let open = &mut self.streams[place];
        let window = self.window.min(open.window);
        if !open.is_blocked() && length as i64 <= window && length <= self.payload_max {
            self.window -= length as i64;
            open.window -= length as i64;
            if last {
                self.streams.swap_remove(place);
            }
            return;
        }
        // Otherwise the message is sent in parts, as far as the windows allow.
        if !open.is_blocked() {
            open.body.clear();
            open.sent = 0;
        }
        open.body.extend_from_slice(&self.bytes[body..]);
        open.last = last;
        self.bytes.truncate(start);
        self.send_blocked();
    }

    /// Ends the client's side of an open stream, after the bytes that wait for a window.
    pub fn end_stream(&mut self, stream: u32) {
        let Some(place) = self.find(stream) else { return };
        if self.streams[place].is_blocked() {
            self.streams[place].last = true;
        } else {
            self.streams.swap_remove(place);
            frames::append(&mut self.bytes, DATA, END_STREAM, stream, &[]);
        }
    }

    /// Forgets a stream that the server ended.
    pub fn forget_stream(&mut self, stream: u32) {
        self.streams.retain(|open| open.stream != stream);
    }

    pub fn reset_stream(&mut self, stream: u32, error_code: u32) {
        self.forget_stream(stream);
        frames::append_u32(&mut self.bytes, RST_STREAM, stream, error_code);
    }

    /// Handles a WINDOW_UPDATE. Returns an error if the window exceeds its maximum.
    pub fn enlarge_window(&mut self, stream: u32, increment: u32) -> Result<(), String> {
        let open = self.streams.iter_mut().find(|open| open.stream == stream);
        let window = match (stream, open) {
            (0, _) => &mut self.window,
            (_, Some(open)) => &mut open.window,
            (_, None) => return Ok(()),
        };
        *window += i64::from(increment);
        if *window > i64::from(frames::WINDOW_MAX) {
            return Err("the server enlarged a window above 2^31 - 1 bytes".into());
        }
        self.send_blocked();
        Ok(())
    }

    /// Applies a setting of the server.
    pub fn apply_setting(&mut self, name: u16, value: u32) {
        if name == frames::INITIAL_WINDOW_SIZE {
            let change = i64::from(value) - self.initial_window;
            self.initial_window = i64::from(value);
            for open in &mut self.streams {
                open.window += change;
            }
            self.send_blocked();
        } else if name == frames::MAX_FRAME_SIZE {
            self.payload_max = value as usize;
        }
    }

    /// Sends waiting bytes, as far as the windows allow.
    fn send_blocked(&mut self) {
        let mut place = 0;
        while place < self.streams.len() {
            let open = &mut self.streams[place];
            while open.is_blocked() {
                let window = self.window.min(open.window).clamp(0, self.payload_max as i64);
                let length = (window as usize).min(open.body.len() - open.sent);
                if length == 0 {
                    break;
                }
                let end = open.sent + length;
                let is_last = open.last && end == open.body.len();
                let flags = if is_last { END_STREAM } else { 0 };
                let payload = &open.body[open.sent..end];
                frames::append(&mut self.bytes, DATA, flags, open.stream, payload);
                open.sent = end;
                open.window -= length as i64;
                self.window -= length as i64;
            }
            if open.last && !open.is_blocked() {
                self.streams.swap_remove(place);
            } else {
                place += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (kind, flags, stream, length)
    type Sent = (u8, u8, u32, usize);

    /// Takes what was sent: the header of each frame, and the payloads of all DATA frames.
    fn take_sent(writer: &mut FrameWriter) -> (Vec<Sent>, Vec<u8>) {
        let bytes = std::mem::take(&mut writer.bytes);
        let mut rest = bytes.strip_prefix(frames::PREFACE).unwrap_or(&bytes);
        let (mut headers, mut data) = (Vec::new(), Vec::new());
        while let Some(frame) = frames::Frame::split_off(&mut rest) {
            headers.push((frame.kind, frame.flags, frame.stream, frame.payload.len()));
            if frame.kind == DATA {
                data.extend_from_slice(frame.payload);
            }
        }
        assert!(rest.is_empty());
        (headers, data)
    }

    fn connected() -> FrameWriter {
        let mut writer = FrameWriter::new();
        let (headers, _) = take_sent(&mut writer);
        assert_eq!(headers, [(frames::SETTINGS, 0, 0, 18), (frames::WINDOW_UPDATE, 0, 0, 4)]);
        writer
    }

    #[test]
    fn a_call_is_sent_as_headers_and_one_data_frame() {
        let mut writer = connected();
        writer.open_stream(1, b"HHH");
        writer.send_message(1, true, |out| out.extend_from_slice(b"abc"));
        let (headers, data) = take_sent(&mut writer);
        assert_eq!(headers, [(HEADERS, END_HEADERS, 1, 3), (DATA, END_STREAM, 1, 8)]);
        assert_eq!(data, b"\0\0\0\0\x03abc");
    }

    #[test]
    fn a_large_call_is_sent_in_parts_as_windows_open() {
        let mut writer = connected();
        let body: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        writer.open_stream(1, b"H");
        writer.send_message(1, true, |out| out.extend_from_slice(&body));
        let (headers, mut data) = take_sent(&mut writer);
        assert_eq!(data.len(), 65_535);
        assert!(headers.iter().all(|&(_, flags, ..)| flags & END_STREAM == 0));
        assert!(writer.is_blocked());
        writer.enlarge_window(0, 1_000_000).unwrap();
        assert!(writer.bytes.is_empty(), "the stream's own window is still shut");
        writer.apply_setting(frames::INITIAL_WINDOW_SIZE, 100_000);
        data.extend(take_sent(&mut writer).1);
        assert_eq!(data.len(), 100_000);
        writer.enlarge_window(1, 500_000).unwrap();
        let (headers, rest) = take_sent(&mut writer);
        data.extend(rest);
        assert_eq!(headers.last().unwrap().1, END_STREAM);
        assert_eq!(data[5..], body);
        assert!(!writer.is_blocked());
        // The connection's window is now 1,065,535 less what was sent.
        assert!(writer.enlarge_window(0, frames::WINDOW_MAX - 865_530).is_ok());
        assert!(writer.enlarge_window(0, 1).is_err());
    }

    #[test]
    fn messages_of_a_stream_share_its_window() {
        let mut writer = connected();
        writer.open_stream(1, b"H");
        for _ in 0..3 {
            writer.send_message(1, false, |out| out.resize(out.len() + 30_000, 7));
        }
        assert!(writer.is_stream_blocked(1));
        writer.end_stream(1);
        let (headers, data) = take_sent(&mut writer);
        assert_eq!(data.len(), 65_535);
        assert_eq!(headers[0], (HEADERS, END_HEADERS, 1, 1));
        writer.enlarge_window(0, 100_000).unwrap();
        writer.enlarge_window(1, 100_000).unwrap();
        let (headers, rest) = take_sent(&mut writer);
        assert_eq!(data.len() + rest.len(), 3 * 30_005);
        assert_eq!(headers.last().unwrap().1, END_STREAM);
    }

    #[test]
    fn a_reset_stream_sends_no_more() {
        let mut writer = connected();
        writer.open_stream(1, b"H");
        writer.send_message(1, true, |out| out.resize(out.len() + 100_000, 7));
        writer.bytes.clear();
        writer.reset_stream(1, frames::CANCEL);
        writer.enlarge_window(0, 100_000).unwrap();
        let (headers, _) = take_sent(&mut writer);
        assert_eq!(headers, [(RST_STREAM, 0, 1, 4)]);
    }
}
