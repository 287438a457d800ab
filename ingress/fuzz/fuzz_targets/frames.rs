//! Any bytes behind a good greeting: frames, headers and messages of a connection. Nothing of it may
//! fail, and once the connection is over nothing may be left inside.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use turnout_ingress::calls::admission::Admission;
use turnout_ingress::io_thread::batch_timing::Pace;
use turnout_ingress::io_thread::shared::Bridge;
use turnout_ingress::io_thread::server_state::{House, Limits};
use turnout_ingress::calls::call_queue::Intake;
use turnout_ingress::calls::shape::{DoorLimits, Shape, Shapes};
use turnout_ingress::http2::stream::Method;
use turnout_ingress::http2::stream_events::Seat;
use turnout_ingress::http2::streams::Streams;
use turnout_ingress::sys::nghttp2::{Events, Promises, Session};

const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn house() -> House {
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
        names: DoorLimits {
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
    let bridge = Bridge::new(Intake::new(Admission::new(64, 90, 50)), Pace::new(0)).expect("descriptors");
    let mut house = House::new(limits, methods.into(), Arc::new(bridge));
    let shape = Shape {
        model: "c".to_owned(),
        input_defaults: vec![0.0],
        rows_max: 4,
        ..Shape::default()
    };
    house.shapes = Shapes::from([(b"c".to_vec(), Arc::new(shape))]);
    house
}

fuzz_target!(|bytes: &[u8]| {
    let mut house = house();
    let mut streams = Streams::new(1);
    let mut session = Session::new(Promises {
        streams: 8,
        stream_window: 65_535,
        connection_window: 1 << 20,
        header_list: 1_024,
    });
    let mut out = Vec::new();
    // Cut into pieces, as a network would.
    for piece in [GREETING].into_iter().chain(bytes.chunks(61)) {
        house.now_ns += 1;
        let mut seat = Seat { streams: &mut streams, house: &mut house };
        let whole = session.receive(piece, &mut seat).is_ok();
        streams.act(&mut session);
        let mut seat = Seat { streams: &mut streams, house: &mut house };
        let _ = session.send(&mut seat, &mut out, 1 << 20);
        out.clear();
        if !whole {
            break;
        }
    }
    let open: Vec<i32> = streams.open.keys().copied().collect();
    let mut seat = Seat { streams: &mut streams, house: &mut house };
    for stream in open {
        seat.closed(stream, 8);
    }
    assert_eq!(house.bridge.with_intake(|intake| intake.rows_inside()), 0);
    assert!(house.raws.is_empty());
});
