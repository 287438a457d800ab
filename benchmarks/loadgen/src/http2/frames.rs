//! HTTP/2 frames (RFC 9113): reading frame headers, and writing frames.

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of a frame header, bytes.
pub const HEADER_BYTES: usize = 9;
/// Default of SETTINGS_MAX_FRAME_SIZE, bytes. This client never raises its own value.
pub const PAYLOAD_BYTES_MAX: usize = 16_384;
/// Default of SETTINGS_INITIAL_WINDOW_SIZE, and the connection's first window, bytes.
pub const WINDOW_DEFAULT: i64 = 65_535;
pub const WINDOW_MAX: u32 = (1 << 31) - 1;
pub const STREAM_MAX: u32 = (1 << 31) - 1;

// Frame types.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

// Flags.
pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;
pub const PRIORITY: u8 = 0x20;

// Settings.
pub const HEADER_TABLE_SIZE: u16 = 1;
pub const ENABLE_PUSH: u16 = 2;
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;
pub const MAX_FRAME_SIZE: u16 = 5;

// Error codes.
pub const NO_ERROR: u32 = 0;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;
pub const INADEQUATE_SECURITY: u32 = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Length of the payload that follows, bytes.
    pub length: usize,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl FrameHeader {
    /// Reads a header from the front of `bytes`. Returns None if `bytes` is too short.
    #[inline]
    pub fn read(bytes: &[u8]) -> Option<FrameHeader> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        Some(FrameHeader {
            length: u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize,
            kind: header[3],
            flags: header[4],
            stream: u32_at(header, 5) & STREAM_MAX,
        })
    }

    #[inline]
    pub fn bytes(self) -> [u8; HEADER_BYTES] {
        let [_, l0, l1, l2] = (self.length as u32).to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [l0, l1, l2, self.kind, self.flags, s0, s1, s2, s3]
    }
}

/// A frame that was received.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Splits the first complete frame off the front of `rest`. Returns None, and leaves `rest`
    /// unchanged, if the frame has not arrived completely.
    #[inline]
    pub fn split_off(rest: &mut &'a [u8]) -> Option<Frame<'a>> {
        let FrameHeader { length, kind, flags, stream } = FrameHeader::read(rest)?;
        let payload = rest.get(HEADER_BYTES..HEADER_BYTES + length)?;
        *rest = &rest[HEADER_BYTES + length..];
        Some(Frame { kind, flags, stream, payload })
    }

    /// Returns whether all of `flags` are set.
    #[inline]
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Returns the payload of a DATA or HEADERS frame without padding and priority fields. An
    /// error says that the padding is longer than the payload.
    #[inline]
    pub fn content(&self) -> Result<&'a [u8], &'static str> {
        if self.flags & (PADDED | PRIORITY) == 0 {
            return Ok(self.payload);
        }
        let padded = self.has(PADDED);
        let padding =
            if padded { self.payload.first().map_or(1, |&byte| byte as usize) } else { 0 };
        let priority = if self.kind == HEADERS && self.has(PRIORITY) { 5 } else { 0 };
        let start = usize::from(padded) + priority;
        let end = self.payload.len().saturating_sub(padding);
        self.payload.get(start..end).ok_or("the server sent a frame with too much padding")
    }
}

/// Appends a complete frame.
#[inline]
pub fn append(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = payload.len();
    out.extend_from_slice(&FrameHeader { length, kind, flags, stream }.bytes());
    out.extend_from_slice(payload);
}

/// Appends a frame without flags that has one number as its payload.
pub fn append_u32(out: &mut Vec<u8>, kind: u8, stream: u32, value: u32) {
    append(out, kind, 0, stream, &value.to_be_bytes());
}

/// Returns the big-endian number at byte `at`, or 0 if `bytes` ends before.
#[inline]
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |four| u32::from_be_bytes(*four))
}

/// Returns (name, value) of each setting in a SETTINGS payload.
pub fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> + '_ {
    payload.chunks_exact(6).map(|six| (u16::from_be_bytes([six[0], six[1]]), u32_at(six, 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_header_is_read_as_it_was_written() {
        let header = FrameHeader { length: 0x01_02_03, kind: DATA, flags: END_STREAM, stream: 77 };
        assert_eq!(FrameHeader::read(&header.bytes()), Some(header));
        assert_eq!(FrameHeader::read(&header.bytes()[..8]), None);
    }

    #[test]
    fn padding_and_priority_are_removed() {
        let content = |payload| {
            Frame { kind: HEADERS, flags: PADDED | PRIORITY, stream: 1, payload }.content().ok()
        };
        assert_eq!(content(b"\x02PPPPPab\0\0"), Some(&b"ab"[..]));
        assert_eq!(content(b"\xffPPPPPab"), None);
        assert_eq!(content(b""), None);
    }

    #[test]
    fn settings_are_read_as_pairs() {
        let payload = [0, 3, 0, 0, 0, 100, 0, 4, 0, 1, 0, 0, 9];
        let read: Vec<_> = settings(&payload).collect();
        assert_eq!(read, [(MAX_CONCURRENT_STREAMS, 100), (INITIAL_WINDOW_SIZE, 65_536)]);
    }
}
