//! A server that answers every Predict call with the same bytes. It shows how many calls a second
//! this program can send at most.

use crate::http2::frame_writer::GRPC_HEADER_BYTES;
use crate::http2::frames::{self, ACK, DATA, END_HEADERS, END_STREAM, Frame, HEADERS};
use crate::http2::hpack;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// A PredictReply: model "null", version "0", role PRODUCTION, a prediction id of 64 bytes, one
/// score of 0.5, one output.
const REPLY_BEGIN: &[u8] = b"\x12\x04null\x1a\x010\x20\x01\x2a\x40";
const REPLY_END: &[u8] = b"\x3a\x04\0\0\0\x3f\x40\x01";
/// A window is enlarged again after this many bytes arrived.
const WINDOW_UPDATE_BYTES: u32 = 1 << 15;
const BUFFER_BYTES: usize = 256 << 10;

pub struct ConstantServer {
    listener: TcpListener,
    /// The answer's header block, gRPC message and trailers.
    answer: Arc<[Vec<u8>; 3]>,
}

impl ConstantServer {
    pub fn bind(address: &str) -> io::Result<ConstantServer> {
        let mut headers = vec![0x88]; // :status 200
        hpack::encode(&mut headers, "content-type", "application/grpc");
        let reply = [REPLY_BEGIN, &[7; 64], REPLY_END].concat();
        let mut message = vec![0; GRPC_HEADER_BYTES];
        message[1..].copy_from_slice(&(reply.len() as u32).to_be_bytes());
        message.extend_from_slice(&reply);
        let mut trailers = Vec::new();
        hpack::encode(&mut trailers, "grpc-status", "0");
        let answer = Arc::new([headers, message, trailers]);
        Ok(ConstantServer { listener: TcpListener::bind(address)?, answer })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the process ends. Each connection has a thread.
    pub fn serve(self) -> io::Result<()> {
        for socket in self.listener.incoming() {
            let (socket, answer) = (socket?, Arc::clone(&self.answer));
            // An error means that the client closed the connection.
            std::thread::spawn(move || serve_connection(socket, &answer));
        }
        Ok(())
    }
}

fn serve_connection(mut socket: TcpStream, answer: &[Vec<u8>; 3]) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut preface = vec![0; frames::PREFACE.len()];
    socket.read_exact(&mut preface)?;
    // Send the settings: many streams, and the largest windows.
    let mut out = Vec::new();
    let mut settings = frames::MAX_CONCURRENT_STREAMS.to_be_bytes().to_vec();
    settings.extend_from_slice(&1_000u32.to_be_bytes());
    settings.extend_from_slice(&frames::INITIAL_WINDOW_SIZE.to_be_bytes());
    settings.extend_from_slice(&frames::WINDOW_MAX.to_be_bytes());
    frames::append(&mut out, frames::SETTINGS, 0, 0, &settings);

    let (mut buffer, mut filled, mut received) = (vec![0; BUFFER_BYTES], 0, 0);
    loop {
        socket.write_all(&out)?;
        out.clear();
        let count = socket.read(&mut buffer[filled..])?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
        // Handle all complete frames.
        let mut rest = &buffer[..filled];
        while let Some(frame) = Frame::split_off(&mut rest) {
            let Frame { kind, stream, payload, .. } = frame;
            match kind {
                DATA => {
                    received += payload.len() as u32;
                    if frame.has(END_STREAM) {
                        let last = END_HEADERS | END_STREAM;
                        frames::append(&mut out, HEADERS, END_HEADERS, stream, &answer[0]);
                        frames::append(&mut out, DATA, 0, stream, &answer[1]);
                        frames::append(&mut out, HEADERS, last, stream, &answer[2]);
                    }
                }
                frames::SETTINGS | frames::PING if !frame.has(ACK) => {
                    let reply = if kind == frames::PING { payload } else { &[] };
                    frames::append(&mut out, kind, ACK, 0, reply);
                }
                _ => {}
            }
        }
        let used = filled - rest.len();
        buffer.copy_within(used..filled, 0);
        filled -= used;
        if received > WINDOW_UPDATE_BYTES {
            frames::append_u32(&mut out, frames::WINDOW_UPDATE, 0, received);
            received = 0;
        }
    }
}
