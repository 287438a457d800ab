//! PredictReply and StreamReply, read as far as they are counted.

/// One field of a protobuf message. Numbers are in *value*, everything else in *bytes*.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    pub number: u32,
    pub value: u64,
    pub bytes: &'a [u8],
}

/// The fields of a message, in order; ends early where it is malformed.
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields(message)
}

pub struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    #[inline]
    fn next(&mut self) -> Option<Field<'a>> {
        let tag = varint(&mut self.0)?;
        let number = (tag >> 3) as u32;
        let (mut value, mut bytes) = (0, &[][..]);
        match tag & 7 {
            0 => value = varint(&mut self.0)?,
            1 => value = u64::from_le_bytes(*take(&mut self.0, 8)?.first_chunk()?),
            2 => {
                let length = varint(&mut self.0)? as usize;
                bytes = take(&mut self.0, length)?;
            }
            5 => value = u64::from(u32::from_le_bytes(*take(&mut self.0, 4)?.first_chunk()?)),
            _ => return None,
        }
        Some(Field {
            number,
            value,
            bytes,
        })
    }
}

#[inline]
fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

#[inline]
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0u64, 0);
    loop {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Some(value);
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}

pub const ROLES: [&str; 5] = ["", "production", "canary", "pinned", "fallback"];
/// Bits of row_flags, lowest first.
pub const FLAGS: [&str; 5] = ["missing", "stale", "defaulted", "degraded", "not_sticky"];

/// What is counted of one reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told<'a> {
    pub version: &'a [u8],
    pub role: u8,
    /// Rows with each of FLAGS.
    pub flagged: [u32; FLAGS.len()],
}

/// Read a PredictReply.
#[inline]
pub fn reply(message: &[u8]) -> Told<'_> {
    let mut told = Told::default();
    for field in fields(message) {
        match field.number {
            3 => told.version = field.bytes,
            4 => told.role = field.value as u8,
            9 => flag(&mut told.flagged, field),
            _ => {}
        }
    }
    told
}

fn flag(flagged: &mut [u32; FLAGS.len()], field: Field<'_>) {
    let mut count = |flags: u64| {
        for (bit, rows) in flagged.iter_mut().enumerate() {
            *rows += (flags >> bit & 1) as u32;
        }
    };
    if field.bytes.is_empty() {
        count(field.value);
    }
    let mut rest = field.bytes;
    while let Some(flags) = varint(&mut rest) {
        count(flags);
    }
}

/// One message of a PredictStream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streamed<'a> {
    pub request_id: &'a [u8],
    /// The reply, or (code, words).
    pub result: Result<&'a [u8], (u32, String)>,
}

/// Read a StreamReply.
#[inline]
pub fn streamed(message: &[u8]) -> Streamed<'_> {
    let mut request_id = &[][..];
    let mut result = Err((13, "a StreamReply with neither reply nor status".into()));
    for field in fields(message) {
        match field.number {
            1 => request_id = field.bytes,
            2 => result = Ok(field.bytes),
            3 => {
                let (mut code, mut words) = (0, String::new());
                for part in fields(field.bytes) {
                    match part.number {
                        1 => code = part.value as u32,
                        2 => words = String::from_utf8_lossy(part.bytes).into_owned(),
                        _ => {}
                    }
                }
                result = Err((code, words));
            }
            _ => {}
        }
    }
    Streamed { request_id, result }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read() {
        // request_id "a", model "m", version "12", role CANARY, scores, outputs 1, flags 5 and 8
        let message =
            b"\x0a\x01a\x12\x01m\x1a\x0212\x20\x02\x3a\x08\0\0\0\0\0\0\0\0\x40\x01\x4a\x02\x05\x08";
        let told = reply(message);
        assert_eq!((told.version, told.role), (&b"12"[..], 2));
        assert_eq!(told.flagged, [1, 0, 1, 1, 0]);
    }

    #[test]
    fn a_stream_tells_reply_or_status() {
        let good = streamed(b"\x0a\x040001\x12\x02\x20\x01");
        assert_eq!(
            good,
            Streamed {
                request_id: b"0001",
                result: Ok(b"\x20\x01")
            }
        );
        let bad = streamed(b"\x0a\x040002\x1a\x06\x08\x05\x12\x02no");
        assert_eq!(bad.result, Err((5, "no".into())));
    }

    #[test]
    fn nonsense_ends_early_and_panics_never() {
        for seed in 0..50_000u64 {
            let bytes = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
            let _ = (reply(&bytes), streamed(&bytes));
        }
    }
}
