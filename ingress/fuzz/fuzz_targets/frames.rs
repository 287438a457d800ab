//! Any bytes behind a good greeting: frames, headers and messages of a connection. Nothing of it may
//! fail, and once the connection is over nothing may be left inside.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use turnout_ingress::calls::admission::Admission;
use turnout_ingress::io_thread::batch_timing::BatchTiming;
use turnout_ingress::io_thread::shared::Shared;
use turnout_ingress::io_thread::server_state::{ServerState, Limits};
use turnout_ingress::calls::call_queue::CallQueue;
use turnout_ingress::calls::shape::{NameLimits, Shape, Shapes};
use turnout_ingress::http2::stream::Method;
use turnout_ingress::http2::stream_events::StreamEvents;
use turnout_ingress::http2::streams::Streams;
use turnout_ingress::sys::nghttp2::{Events, SessionSettings, Session};

const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn server() -> ServerState {
    let limits = Limits {
        streams_max: 8,
        connections_max: 8,
        message_bytes_max: 4_096,
        metadata_bytes_max: 1_024,
        body_ns_max: 1,
        deadline_ns_max: 1_000,
        stream_calls_max: 4,
        age_ns_max: 1_000,
        grace_ns: 1_000,
        names: NameLimits {
            name_bytes_max: 128,
            request_id_bytes_max: 128,
            typed_bytes_max: 1_024,
        },
    };
    let methods = [
        (b"/p".to_vec(), Method::Predict),
        (b"/s".to_vec(), Method::PredictStream),
        (b"/i".to_vec(), Method::Infer),
        (b"/u".to_vec(), Method::RawUnary),
        (b"/r".to_vec(), Method::RawStream),
    ];
    let shared = Shared::new(CallQueue::new(Admission::new(64, 90, 50)), BatchTiming::new(0)).expect("descriptors");
    let mut server = ServerState::new(limits, methods.into(), Arc::new(shared));
    let shape = Shape {
        model: "c".to_owned(),
        input_defaults: vec![0.0],
        rows_max: 4,
        ..Shape::default()
    };
    server.shapes = Shapes::from([(b"c".to_vec(), Arc::new(shape))]);
    server
}

fuzz_target!(|bytes: &[u8]| {
    let mut server = server();
    let mut streams = Streams::new(1);
    let mut session = Session::new(SessionSettings {
        streams: 8,
        stream_window: 65_535,
        connection_window: 1 << 20,
        header_list: 1_024,
    });
    let mut out = Vec::new();
    // Cut into pieces, as a network would.
    for piece in [GREETING].into_iter().chain(bytes.chunks(61)) {
        server.now_ns += 1;
        let mut events = StreamEvents { streams: &mut streams, server: &mut server };
        let whole = session.receive(piece, &mut events).is_ok();
        streams.act(&mut session);
        let mut events = StreamEvents { streams: &mut streams, server: &mut server };
        let _ = session.send(&mut events, &mut out, 1 << 20);
        out.clear();
        if !whole {
            break;
        }
    }
    let open: Vec<i32> = streams.open.keys().copied().collect();
    let mut events = StreamEvents { streams: &mut streams, server: &mut server };
    for stream in open {
        events.closed(stream, 8);
    }
    assert_eq!(server.shared.with_queue(|queue| queue.rows_inside()), 0);
    assert!(server.raw_calls.is_empty());
});
