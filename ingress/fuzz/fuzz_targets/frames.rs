//! Any bytes behind a valid connection preface: frames, headers and messages of a connection. Nothing
//! may fail, and after the connection no call may be left inside.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use turnout_ingress::calls::admission::Admission;
use turnout_ingress::calls::call_queue::CallQueue;
use turnout_ingress::calls::shape::{ModelShape, ModelShapes, NameLimits};
use turnout_ingress::http2::bounds::client::Client;
use turnout_ingress::http2::service::Limits;
use turnout_ingress::http2::stream::Method;
use turnout_ingress::http2::stream_events::StreamEvents;
use turnout_ingress::http2::streams::Streams;
use turnout_ingress::io_thread::batch_timing::BatchTiming;
use turnout_ingress::io_thread::server_state::ServerState;
use turnout_ingress::io_thread::shared::Shared;
use turnout_ingress::sys::nghttp2::{Events, Session, SessionSettings};

/// The client connection preface and an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn server_state() -> ServerState {
    let limits = Limits {
        streams_max: 8,
        connections_max: 8,
        client_connections_max: 8,
        message_bytes_max: 4_096,
        message_bytes_inside_max: 200_000,
        message_bytes_receiving_max: 20_000,
        metadata_bytes_max: 1_024,
        body_ns_max: 1,
        deadline_ns_max: 1_000,
        stream_calls_max: 4,
        resets_s_max: 1_000,
        age_ns_max: 1_000,
        grace_ns: 1_000,
        names: NameLimits {
            name_bytes_max: 128,
            request_id_bytes_max: 128,
            typed_contents_bytes_max: 1_024,
        },
    };
    let methods = [
        (b"/p".to_vec(), Method::Predict),
        (b"/s".to_vec(), Method::PredictStream),
        (b"/i".to_vec(), Method::Infer),
        (b"/u".to_vec(), Method::RawUnary),
        (b"/r".to_vec(), Method::RawStream),
    ];
    let shared = Shared::new(CallQueue::new(Admission::new(64, 90, 50)), BatchTiming::new(0))
        .expect("descriptors");
    let mut server = ServerState::new(limits, methods.into(), Arc::new(shared));
    let shape = ModelShape {
        model: "c".to_owned(),
        input_defaults: vec![0.0],
        rows_max: 4,
        ..ModelShape::default()
    };
    server.shapes = ModelShapes::from([(b"c".to_vec(), Arc::new(shape))]);
    server
}

fuzz_target!(|bytes: &[u8]| {
    let mut server = server_state();
    let client = Client::V4(1);
    let budgets = server.budgets.client().connection();
    let mut streams = Streams::new(1, client, budgets, 1_000);
    let mut session = Session::new(SessionSettings {
        max_concurrent_streams: 8,
        initial_window_size: 65_535,
        connection_window_size: 1 << 20,
        max_header_list_size: 1_024,
    });
    let mut out = Vec::new();
    // Cut the bytes into pieces, as a network does.
    for piece in [PREFACE].into_iter().chain(bytes.chunks(61)) {
        server.now_ns += 1;
        let mut events = StreamEvents {
            streams: &mut streams,
            server: &mut server,
        };
        let valid = session.receive(piece, &mut events).is_ok();
        if let Some((_, inflating)) = events.server.inflations.pop() {
            events.inflate_slice(inflating.stream);
        }
        streams.apply(&mut session);
        let mut events = StreamEvents {
            streams: &mut streams,
            server: &mut server,
        };
        let _ = session.send(&mut events, &mut out, 1 << 20);
        out.clear();
        if !valid {
            break;
        }
    }
    let open: Vec<i32> = streams.open.keys().copied().collect();
    let mut events = StreamEvents {
        streams: &mut streams,
        server: &mut server,
    };
    for stream in open {
        events.stream_closed(stream, 8);
    }
    assert_eq!(server.shared.with_queue(|queue| queue.rows_inside()), 0);
    assert!(server.raw_calls.is_empty());
    // Everything that the connection held is given back, once Python has taken its events.
    drop(server.shared.take_events());
    assert_eq!((server.budgets.inside.used(), server.budgets.receiving.used()), (0, 0));
});
