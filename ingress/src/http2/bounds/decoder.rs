//! Decoders of compressed messages, which stop where their source stops.

use std::io::{self, BufRead, ErrorKind, Read};

use flate2::bufread::{GzDecoder, ZlibDecoder};

use crate::http2::grpc::Encoding;

/// Compressed bytes of which a slice may read a part.
pub struct SlicedBytes {
    /// All compressed bytes.
    pub bytes: Vec<u8>,
    /// How many the decoder has read.
    pub read: usize,
    /// How many it may read.
    pub readable: usize,
}

impl Read for SlicedBytes {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut rest = self.fill_buf()?;
        let count = rest.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for SlicedBytes {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.read == self.readable && self.read < self.bytes.len() {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(&self.bytes[self.read..self.readable])
    }

    fn consume(&mut self, count: usize) {
        self.read += count;
    }
}

/// Inflates one of the two encodings.
pub enum Decoder {
    /// gzip, of one member.
    Gzip(GzDecoder<SlicedBytes>),
    /// zlib, which HTTP calls deflate.
    Deflate(ZlibDecoder<SlicedBytes>),
}

impl Decoder {
    /// A decoder of compressed bytes.
    pub fn new(encoding: Encoding, bytes: Vec<u8>) -> Decoder {
        let source = SlicedBytes {
            bytes,
            read: 0,
            readable: 0,
        };
        match encoding {
            Encoding::Deflate => Decoder::Deflate(ZlibDecoder::new(source)),
            _ => Decoder::Gzip(GzDecoder::new(source)),
        }
    }

    /// Where it reads.
    pub fn source(&mut self) -> &mut SlicedBytes {
        match self {
            Decoder::Gzip(decoder) => decoder.get_mut(),
            Decoder::Deflate(decoder) => decoder.get_mut(),
        }
    }
}

impl Read for Decoder {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Gzip(decoder) => decoder.read(into),
            Decoder::Deflate(decoder) => decoder.read(into),
        }
    }
}
