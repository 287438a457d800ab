use super::*;
use crate::http2::frames::{DATA, END_HEADERS, END_STREAM, FrameHeader, HEADERS};
use crate::http2::hpack;
use crate::requests::{KeyPattern, RequestSpec};
use crate::results::tests::{ALWAYS, REPLY};

const SECOND_NS: u64 = 1_000_000_000;
/// When every call of these tests is due, and when the server's frames arrive.
const DUE_NS: u64 = 1_000;
const NOW_NS: u64 = 5_000;

/// A connection whose server is played by the test.
struct Fixture {
    connection: Connection,
    requests: Requests,
    results: Results,
}

impl Fixture {
    /// A connection to a server that allows `allowed` streams.
    fn connected(streams: usize, messages: usize, allowed: u32) -> Fixture {
        let header_block = b"BLOCK".to_vec();
        let settings = CallSettings { header_block, streams, messages, timeout_ns: SECOND_NS };
        let keys = vec![KeyPattern::parse("S##:100").unwrap()];
        let spec = RequestSpec { model: "m".into(), rows: 1, keys, inputs: 0 };
        let mut fixture = Fixture {
            connection: Connection::new(Rc::new(settings)),
            requests: Requests::from_spec(spec, 0),
            results: Results::new(ALWAYS),
        };
        fixture.results.now_ns = NOW_NS;
        assert_eq!(fixture.connection.free_slots(), 0, "SETTINGS have not arrived");
        let payload = [&frames::MAX_CONCURRENT_STREAMS.to_be_bytes()[..], &allowed.to_be_bytes()];
        fixture.receive(frames::SETTINGS, 0, 0, &payload.concat());
        fixture.connection.writer.bytes.clear();
        fixture
    }

    fn receive(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut bytes = Vec::new();
        frames::append(&mut bytes, kind, flags, stream, payload);
        self.connection.receive(&bytes, &mut self.results).unwrap();
    }

    fn receive_message(&mut self, stream: u32, message: &[u8]) {
        self.receive(DATA, 0, stream, &grpc_message(message));
    }

    fn receive_trailers(&mut self, stream: u32, status: &str, message: &str) {
        let mut block = Vec::new();
        hpack::encode(&mut block, "grpc-status", status);
        hpack::encode(&mut block, "grpc-message", message);
        self.receive(HEADERS, END_HEADERS | END_STREAM, stream, &block);
    }

    fn send(&mut self, calls: usize) {
        for _ in 0..calls {
            self.connection.send(DUE_NS, &mut self.requests);
        }
    }

    fn cancel_overdue(&mut self, now_ns: u64) {
        self.results.now_ns = now_ns;
        self.connection.cancel_overdue(&mut self.results);
    }

    /// Takes the kinds and streams of the frames that were sent.
    fn take_sent(&mut self) -> Vec<(u8, u32)> {
        let bytes = std::mem::take(&mut self.connection.writer.bytes);
        let mut rest = &bytes[..];
        std::iter::from_fn(|| frames::Frame::split_off(&mut rest))
            .map(|frame| (frame.kind, frame.stream))
            .collect()
    }
}

/// Puts the gRPC header before a message.
fn grpc_message(message: &[u8]) -> Vec<u8> {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

#[test]
fn an_answered_call_frees_its_slot_and_its_version_is_counted() {
    let mut fixture = Fixture::connected(2, 0, 100);
    assert_eq!(fixture.connection.free_slots(), 2);
    fixture.send(2);
    assert_eq!(fixture.connection.free_slots(), 0);
    assert_eq!(fixture.take_sent(), [(HEADERS, 1), (DATA, 1), (HEADERS, 3), (DATA, 3)]);
    fixture.receive(HEADERS, END_HEADERS, 3, &[0x88]);
    fixture.receive_message(3, REPLY);
    fixture.receive_trailers(3, "0", "");
    assert_eq!((fixture.connection.free_slots(), fixture.results.codes[0]), (1, 1));
    assert_eq!(fixture.results.answerers[0].calls, 1);
    assert!((4_000..4_200).contains(&fixture.results.answered.max()));
}

#[test]
fn an_answer_may_arrive_in_any_number_of_parts() {
    let mut fixture = Fixture::connected(1, 0, 100);
    fixture.send(1);
    // One message in two DATA frames, and trailers in HEADERS and CONTINUATION.
    let mut bytes = Vec::new();
    let message = grpc_message(REPLY);
    frames::append(&mut bytes, DATA, 0, 1, &message[..7]);
    frames::append(&mut bytes, DATA, 0, 1, &message[7..]);
    let mut block = Vec::new();
    hpack::encode(&mut block, "grpc-status", "0");
    frames::append(&mut bytes, HEADERS, END_STREAM, 1, &block[..3]);
    frames::append(&mut bytes, frames::CONTINUATION, END_HEADERS, 1, &block[3..]);
    for byte in bytes {
        fixture.connection.receive(&[byte], &mut fixture.results).unwrap();
    }
    assert_eq!((fixture.results.codes[0], fixture.connection.is_idle()), (1, true));
    assert_eq!(fixture.results.answerers[0].version, b"3");
}

#[test]
fn each_kind_of_failure_has_its_status_and_message() {
    let mut fixture = Fixture::connected(9, 0, 100);
    fixture.send(5);
    fixture.receive_trailers(1, "5", "no such%20model");
    fixture.receive(HEADERS, END_HEADERS | END_STREAM, 3, &[0x8d]); // :status 404
    fixture.receive(frames::RST_STREAM, 0, 5, &frames::CANCEL.to_be_bytes());
    fixture.receive_trailers(7, "0", "");
    fixture.receive(DATA, END_STREAM, 9, &grpc_message(REPLY));
    assert_eq!(fixture.results.messages[5], "no such model");
    for code in [5, results::UNIMPLEMENTED, results::CANCELLED, results::INTERNAL, results::UNKNOWN]
    {
        assert_eq!(fixture.results.codes[code as usize], 1, "{code}");
    }
    assert_eq!((fixture.results.calls(), fixture.results.codes[0]), (5, 0));
    assert_eq!(fixture.connection.open_calls(), 0);
}

#[test]
fn calls_that_the_server_never_processed_are_given_back() {
    let mut fixture = Fixture::connected(9, 0, 100);
    fixture.send(3);
    fixture.receive(frames::RST_STREAM, 0, 1, &frames::REFUSED_STREAM.to_be_bytes());
    let goaway = [&3u32.to_be_bytes()[..], &[0; 4]].concat();
    fixture.receive(frames::GOAWAY, 0, 0, &goaway);
    assert_eq!(fixture.connection.unprocessed, [DUE_NS, DUE_NS]);
    assert_eq!((fixture.connection.open_calls(), fixture.connection.free_slots()), (1, 0));
    assert!(fixture.connection.is_closing);
    fixture.receive_message(3, REPLY);
    fixture.receive_trailers(3, "0", "");
    assert!(fixture.connection.is_idle());
    assert_eq!((fixture.results.transparent_retries, fixture.results.calls()), (2, 1));
}

#[test]
fn no_more_calls_are_open_than_the_server_allows() {
    let fixture = Fixture::connected(64, 0, 32);
    assert_eq!(fixture.connection.free_slots(), 32);
}

#[test]
fn pings_and_settings_are_acknowledged() {
    let mut fixture = Fixture::connected(1, 0, 100);
    fixture.receive(frames::PING, 0, 0, b"12345678");
    fixture.receive(frames::PING, frames::ACK, 0, b"12345678");
    fixture.receive(frames::SETTINGS, 0, 0, &[]);
    assert_eq!(fixture.take_sent(), [(frames::PING, 0), (frames::SETTINGS, 0)]);
}

#[test]
fn an_overdue_call_is_cancelled_and_its_late_answer_ignored() {
    let mut fixture = Fixture::connected(1, 0, 100);
    fixture.send(1);
    fixture.take_sent();
    fixture.cancel_overdue(SECOND_NS + DUE_NS);
    assert_eq!(fixture.results.calls(), 0);
    fixture.cancel_overdue(SECOND_NS + DUE_NS + 1);
    assert_eq!(fixture.results.codes[results::DEADLINE_EXCEEDED as usize], 1);
    assert_eq!(fixture.take_sent(), [(frames::RST_STREAM, 1)]);
    fixture.receive_message(1, REPLY);
    fixture.receive_trailers(1, "0", "");
    assert_eq!(fixture.results.calls(), 1);
}

#[test]
fn an_overdue_message_ends_its_stream_and_a_new_one_opens() {
    let mut fixture = Fixture::connected(1, 2, 100);
    fixture.send(2);
    fixture.take_sent();
    fixture.cancel_overdue(SECOND_NS + DUE_NS + 1);
    assert_eq!(fixture.results.codes[results::DEADLINE_EXCEEDED as usize], 2);
    assert_eq!(fixture.take_sent(), [(frames::RST_STREAM, 1), (HEADERS, 3)]);
}

#[test]
fn messages_of_a_stream_are_answered_in_any_order() {
    let mut fixture = Fixture::connected(1, 3, 100);
    assert_eq!(fixture.connection.free_slots(), 3);
    fixture.send(3);
    assert_eq!(fixture.take_sent(), [(DATA, 1), (DATA, 1), (DATA, 1)]);
    fixture.receive_message(1, b"\x0a\x040002\x12\x05\x1a\x013\x20\x01");
    fixture.receive_message(1, b"\x0a\x040000\x1a\x02\x08\x05");
    fixture.receive_message(1, b"\x0a\x040000\x1a\x02\x08\x05"); // not open any more
    assert_eq!((fixture.results.codes[0], fixture.results.codes[5]), (1, 1));
    fixture.connection.finish();
    fixture.receive_trailers(1, "14", "leaving");
    assert_eq!(fixture.connection.unprocessed, [DUE_NS]);
    assert!(fixture.connection.is_idle());
}

#[test]
fn a_message_stream_that_ends_is_opened_again() {
    let mut fixture = Fixture::connected(1, 2, 100);
    fixture.send(1);
    fixture.take_sent();
    fixture.receive_trailers(1, "13", "broken");
    assert_eq!(fixture.results.codes[13], 1);
    assert_eq!(fixture.take_sent(), [(HEADERS, 3)]);
    assert_eq!(fixture.connection.free_slots(), 2);
}

#[test]
fn a_lost_connection_fails_its_open_calls() {
    let mut fixture = Fixture::connected(3, 0, 100);
    fixture.send(3);
    fixture.connection.fail_all("reset by peer", &mut fixture.results);
    assert_eq!(fixture.results.codes[results::UNAVAILABLE as usize], 3);
    assert_eq!(fixture.results.messages[results::UNAVAILABLE as usize], "reset by peer");
}

#[test]
fn a_server_without_http2_is_an_error() {
    let mut fixture = Fixture::connected(1, 0, 100);
    let response = b"HTTP/1.1 400 Bad Request\r\n";
    let error = fixture.connection.receive(response, &mut fixture.results).unwrap_err();
    assert!(error.contains("HTTP/2"));
}

#[test]
fn random_frames_never_panic() {
    for seed in 0..2_000 {
        let mut fixture = Fixture::connected(2, (seed % 2) as usize * 2, 100);
        fixture.send(2);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..4 {
            let length = random.usize(..24);
            let payload: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
            let (kind, flags, stream) = (random.u8(..11), random.u8(..), random.u32(..5));
            let header = FrameHeader { length, kind, flags, stream };
            let bytes = [&header.bytes()[..], &payload].concat();
            if fixture.connection.receive(&bytes, &mut fixture.results).is_err() {
                break;
            }
        }
        fixture.connection.fail_all("over", &mut fixture.results);
        assert!(fixture.connection.is_idle());
    }
}
