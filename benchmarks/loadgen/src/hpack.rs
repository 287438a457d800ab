//! Header blocks (RFC 7541), as far as a gRPC client needs them.
//!
//! Outgoing blocks are literals that nobody need remember. Incoming ones are readable without any
//! memory too, because we announce a header table of 0 bytes: so one block always means the same,
//! and a caller may compare bytes instead of decoding.

use std::sync::OnceLock;

/// Bits of each symbol's Huffman code; the code is canonical, so lengths say all (appendix B).
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
const STATIC_MAX: u64 = 61;
const INTEGER_MAX: u64 = 1 << 24;

/// Append one header as a literal without index; name in lower case.
pub fn encode(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(0);
    for text in [name, value] {
        integer(out, text.len());
        out.extend_from_slice(text);
    }
}

fn integer(out: &mut Vec<u8>, value: usize) {
    if value < 127 {
        out.push(value as u8);
        return;
    }
    out.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        out.push(rest as u8 | 128);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// What a response's header block says of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// `:status`
    pub http: Option<u16>,
    /// `grpc-status`
    pub grpc: Option<u32>,
    /// `grpc-message`, percent-decoded
    pub words: String,
}

/// Read a whole block. An error says what is wrong with it.
pub fn decode(block: &[u8]) -> Result<Ending, &'static str> {
    let mut rest = block;
    let mut ending = Ending::default();
    while let Some(&first) = rest.first() {
        if first & 0x80 != 0 {
            match read_integer(&mut rest, 7)? {
                index @ 8..=14 => {
                    ending.http = Some([200, 204, 206, 304, 400, 404, 500][index as usize - 8])
                }
                1..=STATIC_MAX => {}
                _ => return Err("a header of a table that we said is empty"),
            }
        } else if first & 0xe0 == 0x20 {
            if read_integer(&mut rest, 5)? != 0 {
                return Err("a header table larger than the 0 bytes we allow");
            }
        } else {
            let index = read_integer(&mut rest, if first & 0x40 != 0 { 6 } else { 4 })?;
            let name = match index {
                0 => read_text(&mut rest)?,
                8..=14 => b":status".to_vec(),
                1..=STATIC_MAX => Vec::new(),
                _ => return Err("a header name of a table that we said is empty"),
            };
            let value = read_text(&mut rest)?;
            take(&mut ending, &name, &value);
        }
    }
    Ok(ending)
}

fn take(ending: &mut Ending, name: &[u8], value: &[u8]) {
    let text = || std::str::from_utf8(value).unwrap_or("");
    match name {
        b":status" => ending.http = text().parse().ok(),
        b"grpc-status" => ending.grpc = text().parse().ok(),
        b"grpc-message" => ending.words = percent_decoded(value),
        _ => {}
    }
}

fn percent_decoded(value: &[u8]) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut at = 0;
    while at < value.len() {
        let hex = (value[at] == b'%')
            .then(|| value.get(at + 1..at + 3))
            .flatten()
            .and_then(|two| std::str::from_utf8(two).ok())
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        out.push(hex.unwrap_or(value[at]));
        at += if hex.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn read_integer(rest: &mut &[u8], prefix_bits: u32) -> Result<u64, &'static str> {
    let cut = "a header block that ends in the middle";
    let mask = (1u64 << prefix_bits) - 1;
    let (&first, mut tail) = rest.split_first().ok_or(cut)?;
    let mut value = u64::from(first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (&byte, after) = tail.split_first().ok_or(cut)?;
            tail = after;
            value += u64::from(byte & 127) << shift;
            shift += 7;
            if value > INTEGER_MAX || shift > 28 {
                return Err("a header longer than 16 MB");
            }
            if byte & 128 == 0 {
                break;
            }
        }
    }
    *rest = tail;
    Ok(value)
}

fn read_text(rest: &mut &[u8]) -> Result<Vec<u8>, &'static str> {
    let huffman = rest.first().is_some_and(|byte| byte & 0x80 != 0);
    let length = read_integer(rest, 7)? as usize;
    if length > rest.len() {
        return Err("a header block that ends in the middle");
    }
    let (text, tail) = rest.split_at(length);
    *rest = tail;
    if huffman {
        unpacked(text)
    } else {
        Ok(text.to_vec())
    }
}

/// For each length: the first code of it, and which symbols have it, in order.
struct Codes([(u32, Vec<u8>); HUFFMAN_BITS_MAX + 1]);

fn codes() -> &'static Codes {
    static CODES: OnceLock<Codes> = OnceLock::new();
    CODES.get_or_init(|| {
        let mut first = 0u32;
        Codes(std::array::from_fn(|bits| {
            let symbols: Vec<u8> = (0..=255u8)
                .filter(|&symbol| HUFFMAN_BITS[symbol as usize] as usize == bits)
                .collect();
            let here = (first, symbols);
            first = (first + here.1.len() as u32) << 1;
            here
        }))
    })
}

fn unpacked(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let table = &codes().0;
    let mut out = Vec::with_capacity(text.len() * 8 / 5);
    let (mut code, mut bits) = (0u32, 0usize);
    for position in 0..text.len() * 8 {
        code = code << 1 | u32::from(text[position / 8] >> (7 - position % 8) & 1);
        bits += 1;
        if bits > HUFFMAN_BITS_MAX {
            return Err("a Huffman code that does not exist");
        }
        let (first, symbols) = &table[bits];
        if let Some(&symbol) = code
            .checked_sub(*first)
            .and_then(|offset| symbols.get(offset as usize))
        {
            out.push(symbol);
            (code, bits) = (0, 0);
        }
    }
    // What is left must be padding: fewer than eight ones.
    if bits > 7 || code != (1 << bits) - 1 {
        return Err("a Huffman string that ends in the middle");
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_write_can_be_read() {
        let mut block = vec![0x88];
        encode(&mut block, b"content-type", b"application/grpc");
        encode(&mut block, b"grpc-status", b"5");
        encode(&mut block, b"grpc-message", "kein 100% Mödell".as_bytes());
        encode(&mut block, b"long", &[b'x'; 1_000]);
        let ending = decode(&block).unwrap();
        assert_eq!((ending.http, ending.grpc), (Some(200), Some(5)));
        assert_eq!(ending.words, "kein 100% Mödell");
    }

    #[test]
    fn percent_signs_come_back() {
        assert_eq!(percent_decoded(b"a%20b%0Ac%zz%2"), "a b\nc%zz%2");
    }

    #[test]
    fn huffman_of_the_rfc() {
        // RFC 7541, C.4.1 and C.6.1
        let host = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        assert_eq!(unpacked(&host).unwrap(), b"www.example.com");
        let date = [
            0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b,
            0x81, 0x66, 0xe0, 0x82, 0xa6, 0x2d, 0x1b, 0xff,
        ];
        assert_eq!(unpacked(&date).unwrap(), b"Mon, 21 Oct 2013 20:13:21 GMT");
    }

    #[test]
    fn a_block_that_needs_a_memory_is_refused() {
        assert!(decode(&[0x80 | 62]).is_err());
        assert!(decode(&[0x3f, 0xe1, 0x1f]).is_err());
        assert_eq!(decode(&[0x20, 0x88]).unwrap().http, Some(200));
    }

    #[test]
    fn cut_blocks_are_errors_and_no_panic() {
        let mut block = vec![0x88];
        encode(&mut block, b"grpc-status", b"14");
        for end in 2..block.len() {
            assert!(decode(&block[..end]).is_err());
        }
        for seed in 0..20_000u32 {
            let bytes: Vec<u8> = (0..12u32)
                .map(|place| (seed.wrapping_mul(2_654_435_761).rotate_left(place * 5) >> 7) as u8)
                .collect();
            let _ = decode(&bytes);
        }
    }
}
