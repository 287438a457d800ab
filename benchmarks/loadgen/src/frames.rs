//! HTTP/2 frames (RFC 9113): their heads, and the few that we write whole.

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const HEAD_BYTES: usize = 9;
pub const PAYLOAD_BYTES_MAX: usize = 16_384;
pub const WINDOW_FIRST: i64 = 65_535;
pub const WINDOW_MAX: u32 = (1 << 31) - 1;
pub const STREAM_MAX: u32 = WINDOW_MAX;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;
pub const PRIORITY: u8 = 0x20;

pub const SET_TABLE: u16 = 1;
pub const SET_PUSH: u16 = 2;
pub const SET_STREAMS: u16 = 3;
pub const SET_WINDOW: u16 = 4;
pub const SET_FRAME: u16 = 5;

pub const NO_ERROR: u32 = 0;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;
pub const INADEQUATE_SECURITY: u32 = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub length: usize,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl Head {
    /// Read a head from the front of *bytes*; None: not all of it is there yet.
    #[inline]
    pub fn read(bytes: &[u8]) -> Option<Head> {
        let head: &[u8; HEAD_BYTES] = bytes.first_chunk()?;
        Some(Head {
            length: (head[0] as usize) << 16 | (head[1] as usize) << 8 | head[2] as usize,
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & STREAM_MAX,
        })
    }

    #[inline]
    pub fn bytes(self) -> [u8; HEAD_BYTES] {
        let length = (self.length as u32).to_be_bytes();
        let stream = self.stream.to_be_bytes();
        [
            length[1], length[2], length[3], self.kind, self.flags, stream[0], stream[1],
            stream[2], stream[3],
        ]
    }
}

/// Append one whole frame.
pub fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let head = Head {
        length: payload.len(),
        kind,
        flags,
        stream,
    };
    out.extend_from_slice(&head.bytes());
    out.extend_from_slice(payload);
}

/// Append a frame whose payload is one number.
pub fn number(out: &mut Vec<u8>, kind: u8, stream: u32, value: u32) {
    frame(out, kind, 0, stream, &value.to_be_bytes());
}

/// What remains of a payload without its padding and priority; None: it is malformed.
#[inline]
pub fn unpadded(head: Head, payload: &[u8]) -> Option<&[u8]> {
    if head.flags & (PADDED | PRIORITY) == 0 {
        return Some(payload);
    }
    let (mut start, mut end) = (0, payload.len());
    if head.flags & PADDED != 0 {
        end = end.checked_sub(*payload.first()? as usize)?;
        start = 1;
    }
    if head.kind == HEADERS && head.flags & PRIORITY != 0 {
        start += 5;
    }
    payload.get(start..end)
}

/// The u32 at *at*; 0 where the bytes end before.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |four| {
        u32::from_be_bytes([four[0], four[1], four[2], four[3]])
    })
}

/// (name, value) of each setting.
pub fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> + '_ {
    payload
        .chunks_exact(6)
        .map(|six| (u16::from_be_bytes([six[0], six[1]]), u32_at(six, 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_survives_its_bytes() {
        let head = Head {
            length: 0x01_02_03,
            kind: DATA,
            flags: END_STREAM,
            stream: 77,
        };
        assert_eq!(Head::read(&head.bytes()), Some(head));
        assert_eq!(Head::read(&head.bytes()[..8]), None);
    }

    #[test]
    fn padding_and_priority_are_taken_off() {
        let head = Head {
            length: 9,
            kind: HEADERS,
            flags: PADDED | PRIORITY,
            stream: 1,
        };
        assert_eq!(unpadded(head, b"\x02PPPPPab\0\0"), Some(&b"ab"[..]));
        assert_eq!(unpadded(head, b"\xffPPPPPab"), None);
        assert_eq!(unpadded(head, b""), None);
    }

    #[test]
    fn settings_are_pairs() {
        let payload = [0, 3, 0, 0, 0, 100, 0, 4, 0, 1, 0, 0, 9];
        let read: Vec<_> = settings(&payload).collect();
        assert_eq!(read, [(SET_STREAMS, 100), (SET_WINDOW, 65_536)]);
    }
}
