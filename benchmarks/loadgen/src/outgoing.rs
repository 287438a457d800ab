//! What one connection sends, within the windows the other side grants.

use crate::frames::{self, DATA, END_HEADERS, END_STREAM, HEADERS, Head, RST_STREAM};

/// A message's bytes that wait for a window, or a stream that is kept open for more of them.
struct Held {
    stream: u32,
    window: i64,
    body: Vec<u8>,
    sent: usize,
    /// No further message comes.
    last: bool,
}

impl Held {
    fn waits(&self) -> bool {
        self.sent < self.body.len()
    }
}

pub struct Outgoing {
    /// To be written; the connection's owner takes from the front.
    pub bytes: Vec<u8>,
    window: i64,
    window_of_new: i64,
    payload_max: usize,
    held: Vec<Held>,
}

const GRPC_HEAD: usize = 5;

impl Outgoing {
    /// Begin with the preface and our settings: no header table, no pushes, all windows wide open.
    pub fn new() -> Outgoing {
        let mut bytes = frames::PREFACE.to_vec();
        let wanted = [
            (frames::SET_TABLE, 0),
            (frames::SET_PUSH, 0),
            (frames::SET_WINDOW, frames::WINDOW_MAX),
        ];
        let mut payload = Vec::new();
        for (name, value) in wanted {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&u32::to_be_bytes(value));
        }
        frames::frame(&mut bytes, frames::SETTINGS, 0, 0, &payload);
        let more = frames::WINDOW_MAX - frames::WINDOW_FIRST as u32;
        frames::number(&mut bytes, frames::WINDOW_UPDATE, 0, more);
        Outgoing {
            bytes,
            window: frames::WINDOW_FIRST,
            window_of_new: frames::WINDOW_FIRST,
            payload_max: frames::PAYLOAD_BYTES_MAX,
            held: Vec::new(),
        }
    }

    /// Whether some message waits for a window.
    pub fn blocked(&self) -> bool {
        self.held.iter().any(Held::waits)
    }

    /// Whether a message of this stream waits for a window.
    pub fn stream_blocked(&self, stream: u32) -> bool {
        self.held
            .iter()
            .any(|held| held.stream == stream && held.waits())
    }

    #[inline]
    fn headers(&mut self, stream: u32, block: &[u8]) {
        let head = Head {
            length: block.len(),
            kind: HEADERS,
            flags: END_HEADERS,
            stream,
        };
        self.bytes.extend_from_slice(&head.bytes());
        self.bytes.extend_from_slice(block);
    }

    /// Send a whole unary call.
    #[inline]
    pub fn call(&mut self, stream: u32, block: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        self.headers(stream, block);
        let start = self.put(stream, END_STREAM, write);
        let length = (self.bytes.len() - start - frames::HEAD_BYTES) as i64;
        if self.held.is_empty()
            && length <= self.window.min(self.window_of_new)
            && length as usize <= self.payload_max
        {
            self.window -= length;
            return;
        }
        let body = self.bytes.split_off(start + frames::HEAD_BYTES);
        self.bytes.truncate(start);
        let window = self.window_of_new;
        self.held.push(Held {
            stream,
            window,
            body,
            sent: 0,
            last: true,
        });
        self.push();
    }

    /// Open a stream that messages follow on.
    pub fn open(&mut self, stream: u32, block: &[u8]) {
        self.headers(stream, block);
        let window = self.window_of_new;
        self.held.push(Held {
            stream,
            window,
            body: Vec::new(),
            sent: 0,
            last: false,
        });
    }

    /// Send one message of an open stream.
    #[inline]
    pub fn message(&mut self, stream: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(place) = self.held.iter().position(|held| held.stream == stream) else {
            return;
        };
        let start = self.put(stream, 0, write);
        let length = (self.bytes.len() - start - frames::HEAD_BYTES) as i64;
        let held = &mut self.held[place];
        if !held.waits()
            && length <= self.window.min(held.window)
            && length as usize <= self.payload_max
        {
            self.window -= length;
            held.window -= length;
            return;
        }
        if !held.waits() {
            held.body.clear();
            held.sent = 0;
        }
        held.body
            .extend_from_slice(&self.bytes[start + frames::HEAD_BYTES..]);
        self.bytes.truncate(start);
        self.push();
    }

    /// Append a DATA frame of one gRPC message; returns where it starts.
    #[inline]
    fn put(&mut self, stream: u32, flags: u8, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let start = self.bytes.len();
        let body = start + frames::HEAD_BYTES + GRPC_HEAD;
        self.bytes.resize(body, 0);
        write(&mut self.bytes);
        let message = (self.bytes.len() - body) as u32;
        self.bytes[body - 4..body].copy_from_slice(&message.to_be_bytes());
        let length = message as usize + GRPC_HEAD;
        let head = Head {
            length,
            kind: DATA,
            flags,
            stream,
        };
        self.bytes[start..start + frames::HEAD_BYTES].copy_from_slice(&head.bytes());
        start
    }

    /// No more messages on an open stream. What still waits for a window is sent first.
    pub fn finish(&mut self, stream: u32) {
        let Some(place) = self.held.iter().position(|held| held.stream == stream) else {
            return;
        };
        if self.held[place].waits() {
            self.held[place].last = true;
        } else {
            self.held.swap_remove(place);
            frames::frame(&mut self.bytes, DATA, END_STREAM, stream, &[]);
        }
    }

    /// The stream is over, from their side.
    pub fn forget(&mut self, stream: u32) {
        if !self.held.is_empty() {
            self.held.retain(|held| held.stream != stream);
        }
    }

    /// End a stream from our side.
    pub fn reset(&mut self, stream: u32, code: u32) {
        self.forget(stream);
        frames::number(&mut self.bytes, RST_STREAM, stream, code);
    }

    /// WINDOW_UPDATE. An error: more than a window may hold.
    pub fn granted(&mut self, stream: u32, more: u32) -> Result<(), String> {
        let window = if stream == 0 {
            &mut self.window
        } else {
            match self.held.iter_mut().find(|held| held.stream == stream) {
                Some(held) => &mut held.window,
                None => return Ok(()),
            }
        };
        *window += i64::from(more);
        if *window > i64::from(frames::WINDOW_MAX) {
            return Err("the server granted a window above 2^31 - 1".into());
        }
        self.push();
        Ok(())
    }

    /// The settings that change how much may be sent.
    pub fn settle(&mut self, name: u16, value: u32) {
        if name == frames::SET_WINDOW {
            let change = i64::from(value) - self.window_of_new;
            self.window_of_new = i64::from(value);
            for held in &mut self.held {
                held.window += change;
            }
            self.push();
        } else if name == frames::SET_FRAME {
            self.payload_max = value as usize;
        }
    }

    /// Send what waits, as far as the windows allow.
    fn push(&mut self) {
        let mut place = 0;
        while place < self.held.len() {
            let held = &mut self.held[place];
            while held.waits() {
                let room = self
                    .window
                    .min(held.window)
                    .clamp(0, self.payload_max as i64) as usize;
                let length = room.min(held.body.len() - held.sent);
                if length == 0 {
                    break;
                }
                let end = held.sent + length;
                let last = held.last && end == held.body.len();
                let flags = if last { END_STREAM } else { 0 };
                let payload = &held.body[held.sent..end];
                frames::frame(&mut self.bytes, DATA, flags, held.stream, payload);
                held.sent = end;
                held.window -= length as i64;
                self.window -= length as i64;
            }
            if held.last && !held.waits() {
                self.held.swap_remove(place);
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

    /// Each frame, and all DATA of one stream.
    fn sent(outgoing: &mut Outgoing, stream: u32) -> (Vec<Sent>, Vec<u8>) {
        let bytes = std::mem::take(&mut outgoing.bytes);
        let mut rest = bytes.strip_prefix(frames::PREFACE).unwrap_or(&bytes);
        let (mut heads, mut data) = (Vec::new(), Vec::new());
        while let Some(head) = Head::read(rest) {
            let payload = &rest[frames::HEAD_BYTES..frames::HEAD_BYTES + head.length];
            heads.push((head.kind, head.flags, head.stream, head.length));
            if head.kind == DATA && head.stream == stream {
                data.extend_from_slice(payload);
            }
            rest = &rest[frames::HEAD_BYTES + head.length..];
        }
        assert!(rest.is_empty());
        (heads, data)
    }

    fn greeted() -> Outgoing {
        let mut outgoing = Outgoing::new();
        let (heads, _) = sent(&mut outgoing, 1);
        assert_eq!(
            heads,
            [
                (frames::SETTINGS, 0, 0, 18),
                (frames::WINDOW_UPDATE, 0, 0, 4)
            ]
        );
        outgoing
    }

    #[test]
    fn a_call_is_headers_and_one_data_frame() {
        let mut outgoing = greeted();
        outgoing.call(1, b"HHH", |out| out.extend_from_slice(b"abc"));
        let (heads, data) = sent(&mut outgoing, 1);
        assert_eq!(
            heads,
            [(HEADERS, END_HEADERS, 1, 3), (DATA, END_STREAM, 1, 8)]
        );
        assert_eq!(data, b"\0\0\0\0\x03abc");
    }

    #[test]
    fn a_large_call_waits_for_windows_and_comes_whole() {
        let mut outgoing = greeted();
        let body: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        outgoing.call(1, b"H", |out| out.extend_from_slice(&body));
        let (heads, mut data) = sent(&mut outgoing, 1);
        assert_eq!(data.len(), 65_535);
        assert!(heads.iter().all(|&(_, flags, ..)| flags & END_STREAM == 0));
        assert!(outgoing.blocked());
        outgoing.granted(0, 1_000_000).unwrap();
        assert!(
            outgoing.bytes.is_empty(),
            "the stream's own window is still shut"
        );
        outgoing.settle(frames::SET_WINDOW, 100_000);
        data.extend(sent(&mut outgoing, 1).1);
        assert_eq!(data.len(), 100_000);
        outgoing.granted(1, 500_000).unwrap();
        let (heads, rest) = sent(&mut outgoing, 1);
        data.extend(rest);
        assert_eq!(heads.last().unwrap().1, END_STREAM);
        assert_eq!(data[5..], body);
        assert!(!outgoing.blocked());
        // 1,065,535 less what was sent is left of the connection's window.
        assert!(outgoing.granted(0, frames::WINDOW_MAX - 865_530).is_ok());
        assert!(outgoing.granted(0, 1).is_err());
    }

    #[test]
    fn messages_of_a_stream_share_its_window() {
        let mut outgoing = greeted();
        outgoing.open(1, b"H");
        let message = |out: &mut Vec<u8>| out.resize(out.len() + 30_000, 7);
        for _ in 0..3 {
            outgoing.message(1, message);
        }
        assert!(outgoing.stream_blocked(1));
        outgoing.finish(1);
        let (heads, data) = sent(&mut outgoing, 1);
        assert_eq!(data.len(), 65_535);
        assert_eq!(heads[0], (HEADERS, END_HEADERS, 1, 1));
        outgoing.granted(0, 100_000).unwrap();
        outgoing.granted(1, 100_000).unwrap();
        let (heads, rest) = sent(&mut outgoing, 1);
        assert_eq!(data.len() + rest.len(), 3 * 30_005);
        assert_eq!(heads.last().unwrap().1, END_STREAM);
    }

    #[test]
    fn a_reset_stream_sends_no_more() {
        let mut outgoing = greeted();
        outgoing.call(1, b"H", |out| out.resize(out.len() + 100_000, 7));
        outgoing.bytes.clear();
        outgoing.reset(1, frames::CANCEL);
        outgoing.granted(0, 100_000).unwrap();
        let (heads, _) = sent(&mut outgoing, 1);
        assert_eq!(heads, [(RST_STREAM, 0, 1, 4)]);
    }
}
