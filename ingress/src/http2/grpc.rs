//! gRPC over HTTP/2: timeouts, length-prefixed messages, trailers and compression.

use crate::calls::refusal::{code, Refusal};
use crate::http2::stream::Method;
use crate::sys::nghttp2::Fields;

/// Bytes before each message: a compressed flag and a length of four bytes.
pub const PREFIX_BYTES: usize = 5;

/// How a call's messages may be compressed, by its grpc-encoding.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Messages are not compressed.
    #[default]
    Identity,
    /// Messages may be compressed with gzip.
    Gzip,
    /// Messages may be compressed with zlib, which HTTP and gRPC call deflate.
    Deflate,
    /// The encoding is not supported.
    Unknown,
}

/// Parse a grpc-timeout, which is 1 to 8 digits and a unit, into nanoseconds. None: it is malformed.
pub fn timeout_ns(value: &[u8]) -> Option<i64> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let mut number = 0_i64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number * 10 + i64::from(digit - b'0');
    }
    let unit_ns = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    Some(number.saturating_mul(unit_ns))
}

/// The first length-prefixed message of a buffer.
pub enum PrefixedMessage<'a> {
    /// The message is not complete yet.
    Partial,
    /// The compressed flag, the message, and the offset of the next prefix.
    Complete(u8, &'a [u8], usize),
    /// The prefix announces this many bytes, more than are accepted.
    TooLong(usize),
}

/// Read the first length-prefixed message of a buffer.
pub fn read_prefixed(buffer: &[u8], bytes_max: usize) -> PrefixedMessage<'_> {
    let Some((&flag, rest)) = buffer.split_first() else {
        return PrefixedMessage::Partial;
    };
    let Some(length) = rest.first_chunk::<4>() else {
        return PrefixedMessage::Partial;
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length > bytes_max {
        return PrefixedMessage::TooLong(length);
    }
    match buffer.get(PREFIX_BYTES..PREFIX_BYTES + length) {
        Some(message) => PrefixedMessage::Complete(flag, message, PREFIX_BYTES + length),
        None => PrefixedMessage::Partial,
    }
}

/// Begin a message in `out` with an empty prefix. Returns the offset of the prefix.
pub fn begin_message(out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    out.len() - PREFIX_BYTES
}

/// Write the length of the message whose prefix is at `at`.
pub fn finish_message(out: &mut [u8], at: usize) {
    let length = (out.len() - at - PREFIX_BYTES) as u32;
    out[at + 1..at + PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// How many bytes a message may have, and where that is said.
#[derive(Clone, Copy)]
pub struct MessageBound {
    pub bytes_max: usize,
    pub said_in: &'static str,
}

impl MessageBound {
    /// The bound of a method's messages, given that of all messages and that of methods that score
    /// nothing: reports, health, descriptions, reflection.
    pub fn of(
        method: Option<Method>,
        message_bytes_max: usize,
        unscored_max: usize,
    ) -> MessageBound {
        if method.is_some_and(Method::is_raw) && unscored_max < message_bytes_max {
            return MessageBound {
                bytes_max: unscored_max,
                said_in: "unscored_message_bytes_max",
            };
        }
        MessageBound {
            bytes_max: message_bytes_max,
            said_in: "message_bytes_max",
        }
    }
}

/// The refusal of a message that is longer than is accepted.
pub fn too_long(length: usize, bound: MessageBound) -> Refusal {
    let MessageBound {
        bytes_max,
        said_in,
    } = bound;
    Refusal::new(
        code::RESOURCE_EXHAUSTED,
        format!("the message is {length} bytes long; at most {bytes_max} are taken ({said_in})"),
    )
}

/// The refusal of a message whose compressed flag does not fit the call's encoding. None: it fits.
pub fn flag_refusal(flag: u8, encoding: Encoding) -> Option<Refusal> {
    let compressed = matches!(encoding, Encoding::Gzip | Encoding::Deflate);
    (flag != 1 || !compressed).then(|| {
        let message = "the message is marked as compressed and the call names no grpc-encoding; \
                       name gzip or deflate";
        Refusal::new(code::INTERNAL, message)
    })
}

/// The trailers of a call that ends with a refusal.
pub fn trailers(refusal: &Refusal) -> Fields {
    let mut fields = vec![(b"grpc-status".to_vec(), refusal.code.to_string().into_bytes())];
    if !refusal.message.is_empty() {
        fields.push((b"grpc-message".to_vec(), percent_encoded(&refusal.message)));
    }
    if let Some(pushback_ms) = refusal.pushback_ms {
        let text = pushback_ms.to_string().into_bytes();
        fields.push((b"grpc-retry-pushback-ms".to_vec(), text));
    }
    fields
}

/// Encode a grpc-message: every byte but printable ASCII, and '%', is percent-encoded.
pub fn percent_encoded(message: &str) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(message.len());
    for octet in message.bytes() {
        if matches!(octet, b' '..=b'~') && octet != b'%' {
            encoded.push(octet);
        } else {
            encoded.extend([b'%', HEX[octet as usize >> 4], HEX[octet as usize & 15]]);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeout_ns_reads_digits_and_a_unit_and_nothing_else() {
        assert_eq!(timeout_ns(b"1S"), Some(1_000_000_000));
        assert_eq!(timeout_ns(b"0n"), Some(0));
        assert_eq!(timeout_ns(b"99999999H"), Some(i64::MAX));
        for bad in ["", "S", "1", "1s", "-1S", "123456789n"] {
            assert_eq!(timeout_ns(bad.as_bytes()), None);
        }
    }

    #[test]
    fn percent_encoded_keeps_printable_ascii() {
        assert_eq!(percent_encoded("50 % \u{e9}\n"), b"50 %25 %C3%A9%0A");
    }
}
