//! gzip and deflate: one member a message, within a ratio, inflated in slices.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read};

use crate::calls::refusal::{code, Refusal};
use crate::http2::bounds::budget::Held;
use crate::http2::bounds::client::Client;
use crate::http2::bounds::decoder::Decoder;
use crate::http2::grpc::{Encoding, MessageBound};
use crate::http2::service::StreamRef;

/// A message may inflate to so many times its compressed bytes ...
const RATIO_MAX: usize = 100;
/// ... and to so many bytes more, since small messages of equal rows compress well.
const RATIO_FREE_BYTES: usize = 256 * 1024;
/// Compressed bytes that one slice reads. Blocks without content cost time and give nothing.
const SLICE_BYTES_READ: usize = 4 * 1024;
/// Bytes that one slice inflates.
const SLICE_BYTES_INFLATED: usize = 32 * 1024;
/// What a decoder needs for itself: gzip's window and its tables.
const DECODER_BYTES: usize = 48 * 1024;
/// Messages of one client that are inflated at one time. Its others wait as they came.
const CLIENT_INFLATIONS_MAX: usize = 2;

/// A compressed message that is being inflated.
pub struct Inflation {
    /// None until the first slice.
    decoder: Option<Decoder>,
    encoding: Encoding,
    compressed: Vec<u8>,
    compressed_bytes: usize,
    inflated: Vec<u8>,
    /// What an uncompressed message may have.
    bound: MessageBound,
    held: Held,
    /// Monotonic time after which it is given up.
    pub until_ns: i64,
}

impl Inflation {
    /// A message to be inflated until `until_ns`, within `bound`. Its bytes are taken from the budget
    /// of `held`.
    pub fn new(
        encoding: Encoding,
        message: &[u8],
        bound: MessageBound,
        until_ns: i64,
        mut held: Held,
    ) -> Result<Inflation, Refusal> {
        held.resize(message.len())?;
        Ok(Inflation {
            decoder: None,
            encoding,
            compressed: message.to_vec(),
            compressed_bytes: message.len(),
            inflated: Vec::new(),
            bound,
            held,
            until_ns,
        })
    }

    /// Inflate a further slice. True: that was the last one.
    pub fn run_slice(&mut self) -> Result<bool, Refusal> {
        // Bounds of this slice: bytes to be read, and bytes to be inflated.
        let ratio_bytes = RATIO_FREE_BYTES + RATIO_MAX * self.compressed_bytes;
        let inflated_max = ratio_bytes.min(self.bound.bytes_max);
        self.make_room(inflated_max + 1)?;
        let decoder = self.decoder.get_or_insert_with(|| {
            Decoder::new(self.encoding, std::mem::take(&mut self.compressed))
        });
        let source = decoder.source();
        source.readable = (source.read + SLICE_BYTES_READ).min(source.bytes.len());
        let wanted = SLICE_BYTES_INFLATED.min(inflated_max + 1 - self.inflated.len());
        // Inflate. What a slice has inflated before it has to stop stays in the buffer.
        let result = Read::by_ref(decoder).take(wanted as u64).read_to_end(&mut self.inflated);
        let done = match result {
            Ok(count) => count < wanted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(_) => return Err(not_inflated("the message is not compressed as the call says")),
        };
        // Refuse what follows the first member, and what is too large.
        let source = decoder.source();
        if done && source.read < source.bytes.len() {
            return Err(not_inflated(
                "bytes follow the compressed message; send one member a message",
            ));
        }
        if self.inflated.len() > inflated_max {
            return Err(self.too_large(inflated_max));
        }
        Ok(done)
    }

    /// Hold the memory that a slice needs. A buffer that is full is doubled, up to `most` bytes.
    fn make_room(&mut self, most: usize) -> Result<(), Refusal> {
        let needed = most.min(self.inflated.len() + SLICE_BYTES_INFLATED);
        let mut capacity = self.inflated.capacity();
        if capacity < needed {
            capacity = most.min(needed.max(2 * capacity));
        }
        self.held.resize(self.compressed_bytes + DECODER_BYTES + capacity)?;
        self.inflated.reserve_exact(capacity - self.inflated.len());
        Ok(())
    }

    /// The inflated message, with the bytes that it holds.
    pub fn finish(self) -> (Vec<u8>, Held) {
        let Inflation {
            inflated,
            mut held,
            ..
        } = self;
        // Giving back never fails: the compressed bytes and the decoder are gone.
        let _ = held.resize(inflated.capacity());
        (inflated, held)
    }

    fn too_large(&self, inflated_max: usize) -> Refusal {
        let message = if inflated_max == self.bound.bytes_max {
            format!(
                "the message unpacks to more than {inflated_max} bytes, which is what is taken ({})",
                self.bound.said_in
            )
        } else {
            format!(
                "{} bytes of gzip unpack to more than {inflated_max} bytes; at most {RATIO_MAX} \
                 times as many are taken, and {RATIO_FREE_BYTES} more; send the message \
                 uncompressed",
                self.compressed_bytes
            )
        };
        Refusal::new(code::RESOURCE_EXHAUSTED, message)
    }
}

fn not_inflated(message: &str) -> Refusal {
    Refusal::new(code::INTERNAL, message)
}

/// Streams whose messages are being inflated, in the order of their next slices.
///
/// Clients take turns: who sends many messages delays his own. Of a client, the two oldest do.
#[derive(Default)]
pub struct InflationQueue {
    clients: VecDeque<Client>,
    streams: HashMap<Client, VecDeque<StreamRef>>,
}

impl InflationQueue {
    /// Queue a stream whose message has arrived.
    pub fn push(&mut self, client: Client, stream: StreamRef) {
        self.insert(client, stream, usize::MAX);
    }

    /// Queue the next slice of a stream that had its turn.
    pub fn push_started(&mut self, client: Client, stream: StreamRef) {
        self.insert(client, stream, CLIENT_INFLATIONS_MAX - 1);
    }

    fn insert(&mut self, client: Client, stream: StreamRef, at: usize) {
        let streams = self.streams.entry(client).or_default();
        if streams.is_empty() {
            self.clients.push_back(client);
        }
        streams.insert(at.min(streams.len()), stream);
    }

    /// Take the stream whose turn it is, and its client.
    pub fn pop(&mut self) -> Option<(Client, StreamRef)> {
        let client = self.clients.pop_front()?;
        let streams = self.streams.get_mut(&client)?;
        let stream = streams.pop_front()?;
        if streams.is_empty() {
            self.streams.remove(&client);
        } else {
            self.clients.push_back(client);
        }
        Some((client, stream))
    }

    /// Whether nothing waits to be inflated.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::{GzEncoder, ZlibEncoder};
    use flate2::Compression;

    use super::*;
    use crate::http2::bounds::budget::Budgets;

    const MESSAGE_BYTES_MAX: usize = 4 << 20;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Inflate a whole message. Returns the result, and how many slices that took.
    fn inflate(message: &[u8], inside_max: usize) -> (Result<Vec<u8>, Refusal>, usize) {
        inflate_encoding(Encoding::Gzip, message, inside_max)
    }

    fn inflate_encoding(
        encoding: Encoding,
        message: &[u8],
        inside_max: usize,
    ) -> (Result<Vec<u8>, Refusal>, usize) {
        let budgets = Budgets::worker(inside_max, 0);
        let held = Held::new(&budgets.inside);
        let mut slices = 0;
        let result = Inflation::new(
            encoding,
            message,
            MessageBound::of(None, MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX),
            0,
            held,
        )
        .and_then(|mut inflation| {
            while !inflation.run_slice()? {
                slices += 1;
                assert!(slices < 100_000);
            }
            let (inflated, held) = inflation.finish();
            assert_eq!(budgets.inside.used(), inflated.capacity());
            drop(held);
            Ok(inflated)
        });
        assert_eq!(budgets.inside.used(), 0);
        (result, slices)
    }

    #[test]
    fn inflation_gives_a_message_back_in_slices() {
        let message: Vec<u8> =
            (0..500_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        let (inflated, slices) = inflate(&gzip(&message), 1 << 30);
        assert!(inflated.unwrap() == message);
        assert!(slices >= message.len() / SLICE_BYTES_INFLATED);
        assert_eq!(inflate(&gzip(b""), 1 << 30), (Ok(Vec::new()), 0));
    }

    #[test]
    fn inflation_knows_zlib_by_the_name_deflate() {
        let message: Vec<u8> =
            (0..100_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&message).unwrap();
        let zlib = encoder.finish().unwrap();
        assert!(inflate_encoding(Encoding::Deflate, &zlib, 1 << 30).0.unwrap() == message);
        for other in [&gzip(b"other")[..], &zlib[..zlib.len() - 1], &zlib.repeat(2)] {
            let (refused, _) = inflate_encoding(Encoding::Deflate, other, 1 << 30);
            assert_eq!(refused.unwrap_err().code, code::INTERNAL);
        }
    }

    #[test]
    fn inflation_refuses_more_than_a_hundred_times_the_compressed_bytes() {
        let (refused, slices) = inflate(&gzip(&vec![0; MESSAGE_BYTES_MAX - 100]), 1 << 30);
        assert_eq!(refused.unwrap_err().code, code::RESOURCE_EXHAUSTED);
        assert!(slices <= 1 + (RATIO_FREE_BYTES + 100 * 4_200) / SLICE_BYTES_INFLATED);
        assert!(inflate(&gzip(&vec![0; RATIO_FREE_BYTES]), 1 << 30).0.is_ok());
    }

    #[test]
    fn inflation_refuses_a_message_larger_than_message_bytes_max() {
        let message: Vec<u8> = (0..1_050_000_u32).flat_map(|n| (n / 9).to_le_bytes()).collect();
        let refusal = inflate(&gzip(&message), 1 << 30).0.unwrap_err();
        assert_eq!(refusal.code, code::RESOURCE_EXHAUSTED);
        assert!(refusal.message.contains("message_bytes_max"));
    }

    #[test]
    fn inflation_refuses_a_second_member_a_torn_one_and_other_bytes() {
        let (one, two) = (gzip(b"first"), gzip(b"second"));
        let empty = gzip(b"").repeat(209_714);
        for message in [&[one.clone(), two].concat(), &empty, &one[..one.len() - 1], b"x", b""] {
            let (refused, slices) = inflate(message, 1 << 30);
            assert_eq!(refused.unwrap_err().code, code::INTERNAL);
            assert!(slices < 2);
        }
    }

    #[test]
    fn inflation_reads_blocks_without_content_in_slices() {
        // A stored block of no bytes is five bytes; the last one ends the member.
        let mut message = gzip(b"")[..10].to_vec();
        message.extend([0, 0, 0, 0xff, 0xff].repeat(800_000));
        message.extend([1, 0, 0, 0xff, 0xff]);
        message.extend([0; 8]);
        let (inflated, slices) = inflate(&message, 1 << 30);
        assert_eq!(inflated, Ok(Vec::new()));
        assert!(slices >= message.len() / SLICE_BYTES_READ - 1);
    }

    #[test]
    fn inflation_ends_when_its_budget_is_used() {
        let message: Vec<u8> = (0..100_000_u32).flat_map(|n| n.to_le_bytes()).collect();
        let compressed = gzip(&message);
        let inside_max = compressed.len() + DECODER_BYTES + 100_000;
        assert_eq!(inflate(&compressed, inside_max).0.unwrap_err().code, code::UNAVAILABLE);
        assert_eq!(inflate(&compressed, 1_000).1, 0);
    }

    #[test]
    fn inflation_queue_begins_two_messages_of_a_client_at_one_time() {
        let mut queue = InflationQueue::default();
        for stream in 1..5 {
            queue.push(
                Client::V4(1),
                StreamRef {
                    token: 1,
                    stream,
                },
            );
        }
        let mut order = Vec::new();
        for turn in 0..8 {
            let (client, stream) = queue.pop().unwrap();
            order.push(stream.stream);
            // The first message ends with its third slice.
            if turn != 4 {
                queue.push_started(client, stream);
            }
        }
        assert_eq!(order, [1, 2, 1, 2, 1, 2, 3, 2]);
    }

    #[test]
    fn inflation_queue_gives_each_client_a_turn() {
        let stream = |token| StreamRef {
            token,
            stream: 1,
        };
        let (many, one) = (Client::V4(1), Client::V4(2));
        let mut queue = InflationQueue::default();
        for token in 0..3 {
            queue.push(many, stream(token));
        }
        queue.push(one, stream(9));
        let order: Vec<u64> =
            std::iter::from_fn(|| queue.pop()).map(|(_, stream)| stream.token).collect();
        assert_eq!(order, [0, 9, 1, 2]);
        assert!(queue.is_empty() && queue.streams.is_empty());
    }
}
