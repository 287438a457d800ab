//! Compares the time a call costs in two HTTP/2 codecs: nghttp2 behind `sys::nghttp2`, and the h2
//! crate.
//!
//! Both get the same bytes, 64 calls at a time, as on a busy connection: indexed headers and one DATA
//! frame for each call. Both answer with headers, one message and trailers. There are no sockets and
//! no system calls.
//!
//!     cargo bench --no-default-features --bench codec

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use turnout_ingress::sys::nghttp2::{BodyState, Events, Session, SessionSettings};

const CALLS: u32 = 50_000;
const AT_ONCE: u32 = 64;
const ROUNDS: usize = 7;
const MESSAGE: [u8; 105] = [7; 105];
const REPLY: [u8; 101] = [9; 101];

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn literal(out: &mut Vec<u8>, name: Result<u8, &[u8]>, value: &[u8]) {
    match name {
        Ok(index) => out.push(0x40 | index),
        Err(name) => {
            out.extend_from_slice(&[0x40, name.len() as u8]);
            out.extend_from_slice(name);
        }
    }
    out.push(value.len() as u8);
    out.extend_from_slice(value);
}

/// The connection preface with SETTINGS, then `CALLS` calls in pieces of `AT_ONCE`.
fn pieces() -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(&mut preface, 4, 0, 0, &[]);
    frame(&mut preface, 8, 0, 0, &0x3fff_0000_u32.to_be_bytes());
    let mut first = vec![0x83, 0x86];
    literal(&mut first, Ok(4), b"/turnout.v1.Predictor/Predict");
    literal(&mut first, Ok(1), b"127.0.0.1:8500");
    literal(&mut first, Ok(31), b"application/grpc");
    literal(&mut first, Err(b"te"), b"trailers");
    literal(&mut first, Ok(58), b"grpc-c/1");
    let later = [0x83, 0x86, 0x80 | 66, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62];
    let mut pieces = Vec::new();
    for call in 0..CALLS {
        if call % AT_ONCE == 0 {
            pieces.push(Vec::new());
        }
        let piece: &mut Vec<u8> = pieces.last_mut().expect("a piece was begun");
        let stream = 2 * call + 1;
        frame(piece, 1, 4, stream, if call == 0 { &first } else { &later });
        frame(piece, 0, 1, stream, &MESSAGE);
    }
    (preface, pieces)
}

#[derive(Default)]
struct Echo {
    ended: Vec<i32>,
    sent: std::collections::HashMap<i32, usize>,
    fields: usize,
}

impl Events for Echo {
    fn begin_frame(&mut self, _: u8, _: i32) {}
    fn begin_headers(&mut self, _: i32) {}
    fn header(&mut self, _: i32, _: &[u8], _: &[u8]) -> Result<(), u32> {
        self.fields += 1;
        Ok(())
    }
    fn end_headers(&mut self, _: i32, _: bool) -> Result<(), u32> {
        Ok(())
    }
    fn data(&mut self, _: i32, bytes: &[u8]) -> Result<usize, u32> {
        Ok(bytes.len())
    }
    fn end_stream(&mut self, stream: i32) -> Result<(), u32> {
        self.ended.push(stream);
        Ok(())
    }
    fn stream_closed(&mut self, stream: i32, _: u32) {
        self.sent.remove(&stream);
    }
    fn control_frame(&mut self, _: u8, _: u8, _: usize) {}
    fn read_body(&mut self, stream: i32, into: &mut [u8]) -> (usize, BodyState) {
        self.sent.insert(stream, REPLY.len());
        into[..REPLY.len()].copy_from_slice(&REPLY);
        (REPLY.len(), BodyState::Ok)
    }
}

fn with_nghttp2(preface: &[u8], pieces: &[Vec<u8>]) -> (Duration, usize) {
    let mut session = Session::new(SessionSettings {
        max_concurrent_streams: 128,
        initial_window_size: 256 * 1024,
        connection_window_size: 4 * 1024 * 1024,
        max_header_list_size: 8 * 1024,
    });
    let mut echo = Echo::default();
    let (mut out, mut bytes) = (Vec::new(), 0);
    let began = Instant::now();
    session.receive(preface, &mut echo).expect("a valid preface");
    for piece in pieces {
        session.receive(piece, &mut echo).expect("valid frames");
        for stream in echo.ended.drain(..) {
            session.respond(stream, &[]);
        }
        session.send(&mut echo, &mut out, usize::MAX).expect("valid replies");
        bytes += out.len();
        out.clear();
    }
    (began.elapsed(), bytes)
}

fn with_h2(preface: &[u8], pieces: &[Vec<u8>]) -> (Duration, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let reply = bytes::Bytes::from_static(&REPLY);
    runtime.block_on(async move {
        let (client_end, server_end) = tokio::io::duplex(64 * 1024);
        let began = Instant::now();
        let server = async {
            let mut builder = h2::server::Builder::new();
            builder.max_concurrent_streams(CALLS).initial_window_size(256 * 1024);
            builder.initial_connection_window_size((1 << 31) - 1);
            let mut connection =
                builder.handshake::<_, bytes::Bytes>(server_end).await.expect("a valid preface");
            let mut answered = 0;
            while answered < CALLS {
                let (request, mut respond) =
                    connection.accept().await.expect("a call").expect("valid frames");
                let reply = reply.clone();
                // Servers on this crate spawn a task for each call, because its body arrives later.
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    while let Some(Ok(part)) = body.data().await {
                        let _ = body.flow_control().release_capacity(part.len());
                    }
                    let response = http::Response::builder()
                        .header("content-type", "application/grpc")
                        .body(())
                        .expect("a response");
                    let mut stream = respond.send_response(response, false).expect("headers go");
                    stream.send_data(reply, false).expect("data goes");
                    let mut trailers = http::HeaderMap::with_capacity(1);
                    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                    stream.send_trailers(trailers).expect("trailers go");
                });
                answered += 1;
            }
            while connection.accept().await.is_some() {}
        };
        let (mut reader, mut writer) = tokio::io::split(client_end);
        let client = async {
            writer.write_all(preface).await.expect("room");
            for piece in pieces {
                writer.write_all(piece).await.expect("room");
            }
            writer
        };
        let listener = async {
            let (mut buffer, mut bytes) = (vec![0; 256 * 1024], 0);
            while let Ok(count) = reader.read(&mut buffer).await {
                if count == 0 {
                    break;
                }
                bytes += count;
                if bytes >= CALLS as usize * (REPLY.len() + 9 + 10) {
                    break;
                }
            }
            bytes
        };
        tokio::select! {
            bytes = async { tokio::join!(client, listener).1 } => (began.elapsed(), bytes),
            () = async { server.await; std::future::pending::<()>().await } => unreachable!(),
        }
    })
}

fn main() {
    let (preface, pieces) = pieces();
    let a_call = |took: Duration| took.as_nanos() as f64 / f64::from(CALLS);
    let mut results = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (which, run) in [with_nghttp2, with_h2].into_iter().enumerate() {
            let (took, bytes) = run(&preface, &pieces);
            assert!(bytes > CALLS as usize * REPLY.len(), "{bytes} bytes came back");
            results[which].push(a_call(took));
        }
    }
    for (name, rounds) in ["nghttp2", "h2"].iter().zip(&mut results) {
        rounds.sort_by(f64::total_cmp);
        println!(
            "{name:8} {:5.0} ns a call (of {ROUNDS} rounds; {:.0} to {:.0})",
            rounds[ROUNDS / 2],
            rounds[0],
            rounds[ROUNDS - 1]
        );
    }
}
