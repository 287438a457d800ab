use super::*;
use crate::bodies::{KeyPattern, Recipe, Source};
use crate::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, Head};
use crate::order::Order;
use crate::tally::Window;

const ALWAYS: Window = Window {
    from_ns: 0,
    to_ns: u64::MAX,
    by_end: true,
};
const SECOND: u64 = 1_000_000_000;
/// version "3", role PRODUCTION
const REPLY: &[u8] = b"\x1a\x013\x20\x01";

struct Both {
    connection: Connection,
    bodies: Bodies,
    tally: Tally,
}

impl Both {
    /// A connection to a server that allows *allowed* streams.
    fn greeted(streams: usize, messages: usize, allowed: u32) -> Both {
        let block = b"BLOCK".to_vec();
        let manner = Manner {
            block,
            streams,
            messages,
            timeout_ns: SECOND,
        };
        let keys = vec![KeyPattern::parse("S##:100").unwrap()];
        let recipe = Recipe {
            model: "m".into(),
            rows: 1,
            keys,
            ..Recipe::default()
        };
        let mut both = Both {
            connection: Connection::new(Arc::new(manner)),
            bodies: Bodies::new(Source::Made(recipe), Order::Distinct, 1, 0, 1).unwrap(),
            tally: Tally::new(ALWAYS, true),
        };
        assert_eq!(
            both.connection.room(),
            0,
            "nothing is asked before SETTINGS came"
        );
        let mut payload = vec![0, 3];
        payload.extend_from_slice(&allowed.to_be_bytes());
        both.hear(frames::SETTINGS, 0, 0, &payload);
        both.connection.out.bytes.clear();
        both
    }

    fn hear(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut bytes = Vec::new();
        frames::frame(&mut bytes, kind, flags, stream, payload);
        self.connection
            .hear(&bytes, 5_000, &mut self.tally)
            .unwrap();
    }

    fn ask(&mut self, calls: usize) {
        for _ in 0..calls {
            self.connection.ask(
                Times {
                    due_ns: 1_000,
                    sent_ns: 1_000,
                },
                &mut self.bodies,
            );
        }
    }

    fn message(&mut self, stream: u32, message: &[u8]) {
        self.hear(DATA, 0, stream, &framed(message));
    }

    fn trailers(&mut self, stream: u32, status: &[u8], words: &[u8]) {
        let mut block = Vec::new();
        crate::hpack::encode(&mut block, b"grpc-status", status);
        crate::hpack::encode(&mut block, b"grpc-message", words);
        self.hear(HEADERS, END_HEADERS | END_STREAM, stream, &block);
    }

    /// Kinds and streams of what is to be sent.
    fn sent(&mut self) -> Vec<(u8, u32)> {
        let bytes = std::mem::take(&mut self.connection.out.bytes);
        let (mut rest, mut heads) = (&bytes[..], Vec::new());
        while let Some(head) = Head::read(rest) {
            heads.push((head.kind, head.stream));
            rest = &rest[frames::HEAD_BYTES + head.length..];
        }
        heads
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
    bytes.extend_from_slice(message);
    bytes
}

#[test]
fn a_call_is_answered_and_its_version_counted() {
    let mut both = Both::greeted(2, 0, 100);
    assert_eq!(both.connection.room(), 2);
    both.ask(2);
    assert_eq!(both.connection.room(), 0);
    assert_eq!(
        both.sent(),
        [(HEADERS, 1), (DATA, 1), (HEADERS, 3), (DATA, 3)]
    );
    both.hear(HEADERS, END_HEADERS, 3, &[0x88]);
    both.message(3, REPLY);
    both.trailers(3, b"0", b"");
    assert_eq!((both.connection.room(), both.tally.codes[0]), (1, 1));
    assert_eq!(both.tally.kinds[0].calls, 1);
    assert!((4_000..4_200).contains(&both.tally.answered.max()));
}

#[test]
fn bytes_may_come_one_at_a_time() {
    let mut both = Both::greeted(1, 0, 100);
    both.ask(1);
    let mut bytes = Vec::new();
    let message = framed(REPLY);
    frames::frame(&mut bytes, DATA, 0, 1, &message[..7]);
    frames::frame(&mut bytes, DATA, 0, 1, &message[7..]);
    let mut block = Vec::new();
    crate::hpack::encode(&mut block, b"grpc-status", b"0");
    frames::frame(&mut bytes, HEADERS, END_STREAM, 1, &block[..3]);
    frames::frame(
        &mut bytes,
        frames::CONTINUATION,
        END_HEADERS,
        1,
        &block[3..],
    );
    for byte in bytes {
        both.connection
            .hear(&[byte], 5_000, &mut both.tally)
            .unwrap();
    }
    assert_eq!((both.tally.codes[0], both.connection.idle()), (1, true));
    assert_eq!(both.tally.kinds[0].version, b"3");
}

#[test]
fn statuses_and_their_words_are_kept() {
    let mut both = Both::greeted(9, 0, 100);
    both.ask(5);
    both.trailers(1, b"5", b"no such%20model");
    both.hear(HEADERS, END_HEADERS | END_STREAM, 3, &[0x8d]); // :status 404
    both.hear(frames::RST_STREAM, 0, 5, &frames::CANCEL.to_be_bytes());
    both.trailers(7, b"0", b"");
    both.hear(DATA, END_STREAM, 9, &framed(REPLY));
    assert_eq!(both.tally.words[5], "no such model");
    for code in [5, 12, tally::CANCELLED, tally::INTERNAL, tally::UNKNOWN] {
        assert_eq!(both.tally.codes[code as usize], 1, "{code}");
    }
    assert_eq!((both.tally.failures(), both.connection.open()), (5, 0));
}

#[test]
fn what_the_server_never_saw_is_asked_again() {
    let mut both = Both::greeted(9, 0, 100);
    both.ask(3);
    both.hear(
        frames::RST_STREAM,
        0,
        1,
        &frames::REFUSED_STREAM.to_be_bytes(),
    );
    let goaway = [&3u32.to_be_bytes()[..], &[0; 4]].concat();
    both.hear(frames::GOAWAY, 0, 0, &goaway);
    assert_eq!(both.connection.again, [1_000, 1_000]);
    assert_eq!((both.connection.open(), both.connection.room()), (1, 0));
    assert!(both.connection.leaving);
    both.message(3, REPLY);
    both.trailers(3, b"0", b"");
    assert!(both.connection.idle());
    assert_eq!((both.tally.sent_again, both.tally.calls()), (2, 1));
}

#[test]
fn the_server_says_how_many_may_be_open() {
    let both = Both::greeted(64, 0, 32);
    assert_eq!(both.connection.room(), 32);
}

#[test]
fn pings_and_settings_are_acknowledged() {
    let mut both = Both::greeted(1, 0, 100);
    both.hear(frames::PING, 0, 0, b"12345678");
    both.hear(frames::PING, frames::ACK, 0, b"12345678");
    both.hear(frames::SETTINGS, 0, 0, &[]);
    assert_eq!(both.sent(), [(frames::PING, 0), (frames::SETTINGS, 0)]);
}

#[test]
fn an_overdue_call_is_cancelled() {
    let mut both = Both::greeted(1, 0, 100);
    both.ask(1);
    both.sent();
    both.connection.give_up(SECOND + 1_000, &mut both.tally);
    assert_eq!(both.tally.failures(), 0);
    both.connection.give_up(SECOND + 1_001, &mut both.tally);
    assert_eq!(both.tally.codes[tally::DEADLINE_EXCEEDED as usize], 1);
    assert_eq!(both.sent(), [(frames::RST_STREAM, 1)]);
    both.message(1, REPLY);
    both.trailers(1, b"0", b"");
    assert_eq!(both.tally.calls(), 1);
}

#[test]
fn messages_of_a_stream_are_answered_in_any_order() {
    let mut both = Both::greeted(1, 3, 100);
    assert_eq!(both.connection.room(), 3);
    both.ask(3);
    assert_eq!(both.sent(), [(DATA, 1), (DATA, 1), (DATA, 1)]);
    both.message(1, b"\x0a\x040002\x12\x05\x1a\x013\x20\x01");
    both.message(1, b"\x0a\x040000\x1a\x02\x08\x05");
    both.message(1, b"\x0a\x040000\x1a\x02\x08\x05");
    assert_eq!((both.tally.codes[0], both.tally.codes[5]), (1, 1));
    both.connection.finish();
    both.trailers(1, b"14", b"leaving");
    assert_eq!(both.connection.again, [1_000]);
    assert!(both.connection.idle());
}

#[test]
fn a_stream_that_ends_is_opened_again() {
    let mut both = Both::greeted(1, 2, 100);
    both.ask(1);
    both.sent();
    both.trailers(1, b"13", b"broken");
    assert_eq!(both.tally.codes[13], 1);
    assert_eq!(
        (both.sent(), both.connection.room()),
        (vec![(HEADERS, 3)], 2)
    );
}

#[test]
fn a_lost_connection_fails_what_was_open() {
    let mut both = Both::greeted(3, 0, 100);
    both.ask(3);
    both.connection
        .lost("reset by peer", 5_000, &mut both.tally);
    assert_eq!(both.tally.codes[tally::UNAVAILABLE as usize], 3);
    assert_eq!(
        both.tally.words[tally::UNAVAILABLE as usize],
        "reset by peer"
    );
}

#[test]
fn what_is_no_http2_is_an_error() {
    let mut both = Both::greeted(1, 0, 100);
    let said = both
        .connection
        .hear(b"HTTP/1.1 400 Bad Request\r\n", 0, &mut both.tally);
    assert!(said.unwrap_err().contains("HTTP/2"));
}

#[test]
fn no_bytes_of_a_server_make_it_panic() {
    for seed in 0..2_000u64 {
        let mut both = Both::greeted(2, (seed % 2) as usize * 2, 100);
        both.ask(2);
        let mut random = crate::order::Random::new(seed);
        for _ in 0..4 {
            let length = random.below(24) as usize;
            let payload: Vec<u8> = (0..length).map(|_| random.bits() as u8).collect();
            let head = Head {
                length,
                kind: random.below(11) as u8,
                flags: random.bits() as u8,
                stream: random.below(5) as u32,
            };
            let bytes = [&head.bytes()[..], &payload].concat();
            if both.connection.hear(&bytes, 9, &mut both.tally).is_err() {
                break;
            }
        }
        both.connection.lost("over", 9, &mut both.tally);
        assert!(both.connection.idle());
    }
}
