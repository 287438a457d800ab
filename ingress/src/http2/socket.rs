//! Listening and connected sockets: TCP with SO_REUSEPORT, and Unix.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use std::sync::Arc;

use socket2::{Domain, Protocol, Socket as Raw, Type};

use crate::http2::tls::{Tls, TlsSocket};
use crate::sys::os::duplicate;

/// Connections that may wait to be accepted.
pub const BACKLOG: i32 = 1_024;

/// Where connections come from.
pub enum Listener {
    /// host:port, and how connections are encrypted.
    Tcp(TcpListener, Option<Arc<Tls>>),
    /// A path.
    Unix(UnixListener),
}

impl Listener {
    /// Open a TCP port beside other processes; 0: a free one.
    pub fn tcp(host: &str, port: u16, tls: Option<Arc<Tls>>) -> io::Result<Listener> {
        let address: SocketAddr = (host, port)
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address"))?;
        let raw = Raw::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        raw.set_reuse_address(true)?;
        raw.set_reuse_port(true)?;
        raw.set_nonblocking(true)?;
        raw.bind(&address.into())?;
        raw.listen(BACKLOG)?;
        Ok(Listener::Tcp(raw.into(), tls))
    }

    /// Listen at a bound TCP socket that was lent: others may accept from it as well.
    pub fn lent(fd: RawFd, tls: Option<Arc<Tls>>) -> io::Result<Listener> {
        let raw = Raw::from(duplicate(fd)?);
        raw.set_nonblocking(true)?;
        raw.listen(BACKLOG)?;
        Ok(Listener::Tcp(raw.into(), tls))
    }

    /// Open a Unix socket. Whoever had the path keeps the connections it has, and gets no more.
    pub fn unix(path: &str) -> io::Result<Listener> {
        let fresh = format!("{path}.{}", std::process::id());
        let _ = std::fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh)?;
        listener.set_nonblocking(true)?;
        std::fs::rename(&fresh, path)?;
        Ok(Listener::Unix(listener))
    }

    /// The TCP port; 0 for a path.
    pub fn port(&self) -> u16 {
        match self {
            Listener::Tcp(listener, _) => listener.local_addr().map_or(0, |address| address.port()),
            Listener::Unix(_) => 0,
        }
    }

    /// The next connection that waits.
    pub fn accept(&self) -> io::Result<Socket> {
        match self {
            Listener::Tcp(listener, tls) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                Ok(match tls {
                    None => Socket::Tcp(stream),
                    Some(tls) => Socket::Tls(Box::new(tls.greet(stream)?)),
                })
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(Socket::Unix(stream))
            }
        }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Listener::Tcp(listener, _) => listener.as_raw_fd(),
            Listener::Unix(listener) => listener.as_raw_fd(),
        }
    }
}

/// One connection's socket.
pub enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over TCP, encrypted.
    Tls(Box<TlsSocket>),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Socket {
    /// Say that we send no more; the peer's last bytes are still read.
    pub fn shutdown_write(&self) {
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Tls(stream) => stream.socket.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// Whether bytes that were written still lie here.
    pub fn unsent(&self) -> bool {
        matches!(self, Socket::Tls(stream) if stream.unsent())
    }
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(into),
            Socket::Tls(stream) => stream.read(into),
            Socket::Unix(stream) => stream.read(into),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Tls(stream) => stream.write(bytes),
            Socket::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Socket::Tls(stream) => stream.flush(),
            _ => Ok(()),
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Socket::Tcp(stream) => stream.as_raw_fd(),
            Socket::Tls(stream) => stream.socket.as_raw_fd(),
            Socket::Unix(stream) => stream.as_raw_fd(),
        }
    }
}
