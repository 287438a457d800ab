//! A server that answers every call with constant bytes: what the generator can ask at most.

use crate::frames::{self, Head};
use crate::hpack;
use crate::replies::fields;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io::{self, Read, Write};
use std::net::SocketAddr;

/// PredictReply: model, version, role, prediction id, one score, outputs.
fn reply() -> Vec<u8> {
    let mut reply = b"\x12\x04null\x1a\x010\x20\x01\x2a\x40".to_vec();
    reply.extend_from_slice(&[7; 64]);
    reply.extend_from_slice(b"\x3a\x04\0\0\0\x3f\x40\x01");
    reply
}

struct Peer {
    socket: TcpStream,
    rest: Vec<u8>,
    out: Vec<u8>,
    greeted: bool,
    /// Received and not granted anew.
    taken: u32,
    /// Open streams of messages, with the same of each.
    streams: Vec<(u32, u32)>,
}

/// What does not change from one answer to the next.
struct Constant {
    headers: Vec<u8>,
    reply: Vec<u8>,
    trailers: Vec<u8>,
}

pub struct Null {
    listener: TcpListener,
    constant: Constant,
}

const GRANT_BYTES: u32 = 1 << 15;

impl Null {
    pub fn bind(address: &str) -> io::Result<Null> {
        let address: SocketAddr = address
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "say HOST:PORT in numbers"))?;
        let mut headers = vec![0x88];
        hpack::encode(&mut headers, b"content-type", b"application/grpc");
        let mut trailers = Vec::new();
        hpack::encode(&mut trailers, b"grpc-status", b"0");
        let constant = Constant {
            headers,
            reply: reply(),
            trailers,
        };
        Ok(Null {
            listener: TcpListener::bind(address)?,
            constant,
        })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answer until *calls* were answered (None: for ever).
    pub fn serve(mut self, calls: Option<u64>) -> io::Result<()> {
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(256);
        poll.registry()
            .register(&mut self.listener, Token(0), Interest::READABLE)?;
        // The first place is the listener's.
        let mut peers: Vec<Option<Peer>> = vec![None];
        let mut buffer = vec![0; 256 << 10];
        let mut answered = 0;
        while calls.is_none_or(|calls| answered < calls) {
            match poll.poll(&mut events, None) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                let place = event.token().0;
                if place == 0 {
                    while let Ok((mut socket, _)) = self.listener.accept() {
                        socket.set_nodelay(true)?;
                        let both = Interest::READABLE | Interest::WRITABLE;
                        poll.registry()
                            .register(&mut socket, Token(peers.len()), both)?;
                        peers.push(Some(Peer::new(socket)));
                    }
                } else if let Some(peer) = &mut peers[place] {
                    match peer.turn(&self.constant, &mut buffer) {
                        Ok(count) => answered += count,
                        Err(_) => peers[place] = None,
                    }
                }
            }
        }
        Ok(())
    }
}

impl Peer {
    fn new(socket: TcpStream) -> Peer {
        let mut out = Vec::new();
        let mut settings = frames::SET_STREAMS.to_be_bytes().to_vec();
        settings.extend_from_slice(&1_000u32.to_be_bytes());
        settings.extend_from_slice(&frames::SET_WINDOW.to_be_bytes());
        settings.extend_from_slice(&frames::WINDOW_MAX.to_be_bytes());
        frames::frame(&mut out, frames::SETTINGS, 0, 0, &settings);
        Peer {
            socket,
            rest: Vec::new(),
            out,
            greeted: false,
            taken: 0,
            streams: Vec::new(),
        }
    }

    /// Read, answer, write; returns how many calls were answered.
    fn turn(&mut self, constant: &Constant, buffer: &mut [u8]) -> io::Result<u64> {
        let mut answered = 0;
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.rest.extend_from_slice(&buffer[..count]);
                    answered += self.answer(constant)?;
                    if count < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        match self.socket.write(&self.out) {
            Ok(count) => {
                self.out.drain(..count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(answered)
    }

    fn answer(&mut self, constant: &Constant) -> io::Result<u64> {
        let mut rest = std::mem::take(&mut self.rest);
        let mut at = 0;
        if !self.greeted {
            if rest.len() < frames::PREFACE.len() {
                self.rest = rest;
                return Ok(0);
            }
            self.greeted = true;
            at = frames::PREFACE.len();
        }
        let mut answered = 0;
        while let Some(head) = Head::read(&rest[at..]) {
            let start = at + frames::HEAD_BYTES;
            let Some(payload) = rest.get(start..start + head.length) else {
                break;
            };
            answered += self.take(head, payload, constant);
            at = start + head.length;
        }
        rest.drain(..at);
        self.rest = rest;
        Ok(answered)
    }

    /// Returns how many calls or messages this frame ended.
    fn take(&mut self, head: Head, payload: &[u8], constant: &Constant) -> u64 {
        let (out, stream) = (&mut self.out, head.stream);
        match head.kind {
            frames::SETTINGS if head.flags & frames::ACK == 0 => {
                frames::frame(out, frames::SETTINGS, frames::ACK, 0, &[]);
            }
            frames::PING if head.flags & frames::ACK == 0 => {
                frames::frame(out, frames::PING, frames::ACK, 0, payload);
            }
            frames::DATA => {
                self.taken += payload.len() as u32;
                if self.taken > GRANT_BYTES {
                    frames::number(out, frames::WINDOW_UPDATE, 0, self.taken);
                    self.taken = 0;
                }
                let ends = head.flags & frames::END_STREAM != 0;
                let place = self.streams.iter().position(|&(open, _)| open == stream);
                return match (ends, place) {
                    (true, Some(place)) => {
                        self.streams.swap_remove(place);
                        let last = frames::END_HEADERS | frames::END_STREAM;
                        frames::frame(out, frames::HEADERS, last, stream, &constant.trailers);
                        0
                    }
                    (true, None) => constant.answer(out, stream),
                    (false, _) => self.message(stream, payload, constant),
                };
            }
            _ => {}
        }
        0
    }

    /// A message of a PredictStream, in a frame of its own. A part of a larger call is none.
    fn message(&mut self, stream: u32, payload: &[u8], constant: &Constant) -> u64 {
        let whole = payload.len().checked_sub(5) == Some(frames::u32_at(payload, 1) as usize);
        let request_id = fields(payload.get(5..).unwrap_or(&[])).find(|field| field.number == 6);
        let (true, Some(request_id)) = (whole, request_id) else {
            return 0;
        };
        let out = &mut self.out;
        let place = self.streams.iter().position(|&(open, _)| open == stream);
        let place = place.unwrap_or_else(|| {
            frames::frame(
                out,
                frames::HEADERS,
                frames::END_HEADERS,
                stream,
                &constant.headers,
            );
            self.streams.push((stream, 0));
            self.streams.len() - 1
        });
        let taken = &mut self.streams[place].1;
        *taken += payload.len() as u32;
        if *taken > GRANT_BYTES {
            frames::number(out, frames::WINDOW_UPDATE, stream, *taken);
            *taken = 0;
        }
        let mut reply = vec![0x0a, request_id.bytes.len() as u8];
        reply.extend_from_slice(request_id.bytes);
        reply.extend_from_slice(&[0x12, constant.reply.len() as u8]);
        reply.extend_from_slice(&constant.reply);
        data(out, stream, &reply);
        1
    }
}

impl Constant {
    /// Answer a unary call.
    fn answer(&self, out: &mut Vec<u8>, stream: u32) -> u64 {
        frames::frame(
            out,
            frames::HEADERS,
            frames::END_HEADERS,
            stream,
            &self.headers,
        );
        data(out, stream, &self.reply);
        let last = frames::END_HEADERS | frames::END_STREAM;
        frames::frame(out, frames::HEADERS, last, stream, &self.trailers);
        1
    }
}

/// A DATA frame of one gRPC message.
fn data(out: &mut Vec<u8>, stream: u32, message: &[u8]) {
    let head = Head {
        length: message.len() + 5,
        kind: frames::DATA,
        flags: 0,
        stream,
    };
    out.extend_from_slice(&head.bytes());
    out.push(0);
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
}
