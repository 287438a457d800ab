//! HPACK header blocks (RFC 7541), as far as a gRPC client needs them.
//!
//! This client announces a header table of 0 bytes, so no header block depends on an earlier one.
//! Requests are sent as literals without an index. Two response blocks with equal bytes mean the
//! same, so a caller may compare bytes instead of decoding again.

use percent_encoding::percent_decode;
use std::sync::OnceLock;

/// Length of each symbol's Huffman code, bits. The code is canonical, so the lengths define it
/// (RFC 7541, appendix B).
#[rustfmt::skip]
const HUFFMAN_BITS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];
const HUFFMAN_BITS_MAX: usize = 30;
/// Indexes of the static table that hold a `:status`, and their values (RFC 7541, appendix A).
const STATUS_FIRST: u64 = 8;
const STATUSES: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
const STATIC_TABLE_LENGTH: u64 = 61;
/// Largest length of a header that is accepted, bytes.
const INTEGER_MAX: u64 = 1 << 24;
const TRUNCATED: &str = "the header block is truncated";

/// Appends one header as a literal without an index. The name must be in lower case.
pub fn encode(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0);
    for text in [name, value] {
        if text.len() < 127 {
            out.push(text.len() as u8);
        } else {
            out.push(127);
            crate::protobuf::write_varint(out, text.len() as u64 - 127);
        }
        out.extend_from_slice(text.as_bytes());
    }
}

/// What the last header block of a response says about its call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trailers {
    /// The HTTP status, of header `:status`.
    pub http_status: Option<u16>,
    /// The gRPC status code, of trailer `grpc-status`.
    pub grpc_status: Option<u32>,
    /// `grpc-message`, percent-decoded.
    pub message: String,
}

/// Reads a complete header block. An error says what is wrong with the block.
pub fn decode(block: &[u8]) -> Result<Trailers, &'static str> {
    let mut rest = block;
    let mut trailers = Trailers::default();
    while let Some(&first) = rest.first() {
        if first & 0x80 != 0 {
            // An indexed header: only a :status matters here.
            let index = read_integer(&mut rest, 7)?;
            check_index(index)?;
            if let Some(&status) =
                index.checked_sub(STATUS_FIRST).and_then(|i| STATUSES.get(i as usize))
            {
                trailers.http_status = Some(status);
            }
        } else if first & 0xe0 == 0x20 {
            // A dynamic table size update.
            if read_integer(&mut rest, 5)? != 0 {
                return Err("the server uses a header table larger than the 0 bytes it may use");
            }
        } else {
            // A literal header, with its name by index or in full.
            let index = read_integer(&mut rest, if first & 0x40 != 0 { 6 } else { 4 })?;
            let name = if index == 0 { read_string(&mut rest)? } else { Vec::new() };
            let value = read_string(&mut rest)?;
            let text = || std::str::from_utf8(&value).unwrap_or("");
            match (index, &name[..]) {
                (8..=14, _) | (0, b":status") => trailers.http_status = text().parse().ok(),
                (0, b"grpc-status") => trailers.grpc_status = text().parse().ok(),
                (0, b"grpc-message") => {
                    trailers.message = percent_decode(&value).decode_utf8_lossy().into_owned();
                }
                (0, _) => {}
                _ => check_index(index)?,
            }
        }
    }
    Ok(trailers)
}

/// Refuses an index into the dynamic table, which must be empty.
fn check_index(index: u64) -> Result<(), &'static str> {
    match index {
        1..=STATIC_TABLE_LENGTH => Ok(()),
        _ => Err("the server uses a header table, although this client allows none"),
    }
}

/// Reads an integer that begins in the low `prefix_bits` of the first byte (RFC 7541, 5.1).
fn read_integer(rest: &mut &[u8], prefix_bits: u32) -> Result<u64, &'static str> {
    let prefix_max = (1u64 << prefix_bits) - 1;
    let (&first, tail) = rest.split_first().ok_or(TRUNCATED)?;
    *rest = tail;
    let mut value = u64::from(first) & prefix_max;
    if value == prefix_max {
        let more = crate::protobuf::read_varint(rest).ok_or(TRUNCATED)?;
        value = value.saturating_add(more);
    }
    if value > INTEGER_MAX { Err("a header is longer than 16 MB") } else { Ok(value) }
}

fn read_string(rest: &mut &[u8]) -> Result<Vec<u8>, &'static str> {
    let huffman_coded = rest.first().is_some_and(|byte| byte & 0x80 != 0);
    let length = read_integer(rest, 7)? as usize;
    let (text, tail) = rest.split_at_checked(length).ok_or(TRUNCATED)?;
    *rest = tail;
    if huffman_coded { huffman_decoded(text) } else { Ok(text.to_vec()) }
}

/// For each code length in bits: its first code, and the symbols of that length in code order.
type HuffmanTable = [(u32, Vec<u8>); HUFFMAN_BITS_MAX + 1];

fn huffman_table() -> &'static HuffmanTable {
    static TABLE: OnceLock<HuffmanTable> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut code = 0u32;
        std::array::from_fn(|bits| {
            let has_length = |symbol: &u8| HUFFMAN_BITS[*symbol as usize] as usize == bits;
            let symbols: Vec<u8> = (0..=255u8).filter(has_length).collect();
            let first_code = code;
            code = (code + symbols.len() as u32) << 1;
            (first_code, symbols)
        })
    })
}

fn huffman_decoded(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let table = huffman_table();
    let mut out = Vec::with_capacity(text.len() * 8 / 5);
    let (mut code, mut bits) = (0u32, 0usize);
    for position in 0..text.len() * 8 {
        code = code << 1 | u32::from(text[position / 8] >> (7 - position % 8) & 1);
        bits += 1;
        if bits > HUFFMAN_BITS_MAX {
            return Err("a header has a Huffman code that does not exist");
        }
        let (first_code, symbols) = &table[bits];
        let offset = code.checked_sub(*first_code);
        if let Some(&symbol) = offset.and_then(|offset| symbols.get(offset as usize)) {
            out.push(symbol);
            (code, bits) = (0, 0);
        }
    }
    // The rest must be padding: at most seven ones.
    if bits > 7 || code != (1 << bits) - 1 {
        return Err("a header's Huffman string is truncated");
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_headers_are_decoded() {
        let mut block = vec![0x88];
        encode(&mut block, "content-type", "application/grpc");
        encode(&mut block, "grpc-status", "5");
        encode(&mut block, "grpc-message", "kein 100% Mödell");
        encode(&mut block, "long", &"x".repeat(1_000));
        let trailers = decode(&block).unwrap();
        assert_eq!((trailers.http_status, trailers.grpc_status), (Some(200), Some(5)));
        assert_eq!(trailers.message, "kein 100% Mödell");
    }

    #[test]
    fn percent_encoded_bytes_are_decoded_and_malformed_ones_kept() {
        let mut block = Vec::new();
        encode(&mut block, "grpc-message", "a%20b%0Ac%zz%2");
        assert_eq!(decode(&block).unwrap().message, "a b\nc%zz%2");
    }

    #[test]
    fn huffman_examples_of_the_rfc_are_decoded() {
        // RFC 7541, C.4.1 and C.6.1
        let host = b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        assert_eq!(huffman_decoded(host).unwrap(), b"www.example.com");
        let date = b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff";
        assert_eq!(huffman_decoded(date).unwrap(), b"Mon, 21 Oct 2013 20:13:21 GMT");
    }

    #[test]
    fn a_block_that_uses_the_dynamic_table_is_refused() {
        assert!(decode(&[0x80 | 62]).is_err());
        assert!(decode(&[0x40 | 62, 0]).is_err());
        assert!(decode(&[0x3f, 0xe1, 0x1f]).is_err());
        assert_eq!(decode(&[0x20, 0x88]).unwrap().http_status, Some(200));
    }

    #[test]
    fn truncated_and_random_blocks_never_panic() {
        let mut block = vec![0x88];
        encode(&mut block, "grpc-status", "14");
        for end in 2..block.len() {
            assert!(decode(&block[..end]).is_err());
        }
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let bytes: [u8; 12] = std::array::from_fn(|_| random.u8(..));
            let _ = decode(&bytes);
        }
    }
}
