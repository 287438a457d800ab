//! The fields of PredictReply and StreamReply (protos/predict.proto) that are counted.

use crate::protobuf::{Field, Fields, read_varint};

/// Names of `Role`, by number.
pub const ROLES: [&str; 5] = ["", "production", "canary", "pinned", "fallback"];
/// Names of the bits of `row_flags`, lowest first.
pub const FLAGS: [&str; 5] = ["missing", "stale", "defaulted", "degraded", "not_sticky"];
const INTERNAL: u32 = 13;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PredictReply<'a> {
    pub version: &'a [u8],
    pub role: u8,
    /// Number of rows that have each of FLAGS.
    pub rows_flagged: [u16; FLAGS.len()],
}

impl<'a> PredictReply<'a> {
    #[inline]
    pub fn read(message: &'a [u8]) -> PredictReply<'a> {
        let mut reply = PredictReply::default();
        for field in Fields(message) {
            match field.number {
                3 => reply.version = field.bytes,
                4 => reply.role = field.value as u8,
                9 => count_flags(&mut reply.rows_flagged, field),
                _ => {}
            }
        }
        reply
    }
}

/// Adds the flags of each row. The field is packed, or holds the flags of one row.
fn count_flags(rows_flagged: &mut [u16; FLAGS.len()], field: Field<'_>) {
    let mut add_row = |flags: u64| {
        for (bit, rows) in rows_flagged.iter_mut().enumerate() {
            *rows = rows.wrapping_add((flags >> bit & 1) as u16);
        }
    };
    if field.bytes.is_empty() {
        add_row(field.value);
    }
    let mut rest = field.bytes;
    while let Some(flags) = read_varint(&mut rest) {
        add_row(flags);
    }
}

/// The answer to one message of a PredictStream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamReply<'a> {
    pub request_id: &'a [u8],
    /// The bytes of a PredictReply, or a status code and its message.
    pub result: Result<&'a [u8], (u32, String)>,
}

impl<'a> StreamReply<'a> {
    #[inline]
    pub fn read(message: &'a [u8]) -> StreamReply<'a> {
        let mut request_id = &[][..];
        let mut result = Err((INTERNAL, "the StreamReply has no reply and no status".into()));
        for field in Fields(message) {
            match field.number {
                1 => request_id = field.bytes,
                2 => result = Ok(field.bytes),
                3 => result = Err(read_status(field.bytes)),
                _ => {}
            }
        }
        StreamReply { request_id, result }
    }
}

fn read_status(status: &[u8]) -> (u32, String) {
    let (mut code, mut message) = (0, String::new());
    for field in Fields(status) {
        match field.number {
            1 => code = field.value as u32,
            2 => message = String::from_utf8_lossy(field.bytes).into_owned(),
            _ => {}
        }
    }
    (code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_predict_reply_is_read() {
        // request_id "a", model "m", version "12", role CANARY, scores, outputs 1, flags 5 and 8
        let message =
            b"\x0a\x01a\x12\x01m\x1a\x0212\x20\x02\x3a\x08\0\0\0\0\0\0\0\0\x40\x01\x4a\x02\x05\x08";
        let reply = PredictReply::read(message);
        assert_eq!((reply.version, reply.role), (&b"12"[..], 2));
        assert_eq!(reply.rows_flagged, [1, 0, 1, 1, 0]);
    }

    #[test]
    fn a_stream_reply_holds_a_reply_or_a_status() {
        let answered = StreamReply::read(b"\x0a\x040001\x12\x02\x20\x01");
        assert_eq!((answered.request_id, answered.result), (&b"0001"[..], Ok(&b"\x20\x01"[..])));
        let failed = StreamReply::read(b"\x0a\x040002\x1a\x06\x08\x05\x12\x02no");
        assert_eq!(failed.result, Err((5, "no".into())));
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..50_000 {
            let bytes = random.u64(..).to_le_bytes();
            let _ = (PredictReply::read(&bytes), StreamReply::read(&bytes));
        }
    }
}
