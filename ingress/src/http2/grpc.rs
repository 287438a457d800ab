//! gRPC over HTTP/2: timeouts, message prefixes, statuses, compression.

use std::io::Read;

use flate2::read::MultiGzDecoder;

use crate::calls::shape::{code, Refusal};
use crate::sys::nghttp2::Fields;

/// Bytes before each message: a flag and a length.
pub const PREFIX_BYTES: usize = 5;

/// How a message may be compressed, as its call's grpc-encoding says.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    #[default]
    Identity,
    /// gzip.
    Gzip,
    /// In a way we do not know.
    Unknown,
}

/// Nanoseconds of a grpc-timeout: 1 to 8 digits and a unit. None: it is none.
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

/// One message at the head of a body.
pub enum PrefixedMessage<'a> {
    /// Not all of it is here.
    Partial,
    /// Its flag, its bytes, and where the next one begins.
    Whole(u8, &'a [u8], usize),
    /// It will be longer than is taken.
    TooLong(usize),
}

/// Look at the head of a body.
pub fn read_prefixed(body: &[u8], bytes_max: usize) -> PrefixedMessage<'_> {
    let Some((&flag, rest)) = body.split_first() else {
        return PrefixedMessage::Partial;
    };
    let Some(length) = rest.first_chunk::<4>() else {
        return PrefixedMessage::Partial;
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length > bytes_max {
        return PrefixedMessage::TooLong(length);
    }
    match body.get(PREFIX_BYTES..PREFIX_BYTES + length) {
        Some(message) => PrefixedMessage::Whole(flag, message, PREFIX_BYTES + length),
        None => PrefixedMessage::Partial,
    }
}

/// Begin a message in `out`; returns where its prefix stands.
pub fn begin(out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    out.len() - PREFIX_BYTES
}

/// Write the length of the message that began at `at`.
pub fn finish(out: &mut [u8], at: usize) {
    let length = (out.len() - at - PREFIX_BYTES) as u32;
    out[at + 1..at + PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// The refusal of a message that is too long.
pub fn too_long(length: usize, bytes_max: usize) -> Refusal {
    Refusal::new(
        code::RESOURCE_EXHAUSTED,
        format!(
            "the message is {length} bytes long; at most {bytes_max} are taken (message_bytes_max)"
        ),
    )
}

/// A message whose flag is not 0, made plain; bounded.
pub fn decompress(
    flag: u8,
    message: &[u8],
    encoding: Encoding,
    bytes_max: usize,
) -> Result<Vec<u8>, Refusal> {
    if flag != 1 || encoding == Encoding::Identity {
        return Err(Refusal::new(
            code::INTERNAL,
            "the message is marked as compressed and the call names no grpc-encoding; name gzip",
        ));
    }
    let mut plain = Vec::new();
    let read = MultiGzDecoder::new(message).take(bytes_max as u64 + 1).read_to_end(&mut plain);
    if read.is_err() {
        return Err(Refusal::new(code::INTERNAL, "the message is not the gzip it says it is"));
    }
    if plain.len() > bytes_max {
        return Err(Refusal::new(
            code::RESOURCE_EXHAUSTED,
            format!(
                "the message unpacks to more than {bytes_max} bytes, which is what is taken \
                 (message_bytes_max)"
            ),
        ));
    }
    Ok(plain)
}

/// A call's last fields.
pub fn trailers(refusal: &Refusal) -> Fields {
    let mut fields = vec![(b"grpc-status".to_vec(), refusal.code.to_string().into_bytes())];
    if !refusal.words.is_empty() {
        fields.push((b"grpc-message".to_vec(), percent_encoded(&refusal.words)));
    }
    if let Some(pushback_ms) = refusal.pushback_ms {
        let text = pushback_ms.to_string().into_bytes();
        fields.push((b"grpc-retry-pushback-ms".to_vec(), text));
    }
    fields
}

/// grpc-message's encoding: printable ASCII but '%' as it is.
pub fn percent_encoded(words: &str) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(words.len());
    for octet in words.bytes() {
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
    fn timeouts_are_as_the_protocol_has_them() {
        assert_eq!(timeout_ns(b"1S"), Some(1_000_000_000));
        assert_eq!(timeout_ns(b"0n"), Some(0));
        assert_eq!(timeout_ns(b"99999999H"), Some(i64::MAX));
        for bad in ["", "S", "1", "1s", "-1S", "123456789n"] {
            assert_eq!(timeout_ns(bad.as_bytes()), None);
        }
    }

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(percent_encoded("50 % \u{e9}\n"), b"50 %25 %C3%A9%0A");
    }
}
