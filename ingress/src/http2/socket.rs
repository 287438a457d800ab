//! Listening and connected sockets: TCP with SO_REUSEPORT, and Unix.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket as RawSocket, Type};

use crate::http2::bounds::client::Client;
use crate::http2::tls::{Tls, TlsSocket};
use crate::sys::os::{duplicate, own_user, peer_user};

/// Length of the kernel's queue of connections to be accepted.
pub const BACKLOG: i32 = 4_096;

/// The user id of root, who may call whatever the mode of a Unix socket is.
const ROOT: u32 = 0;

/// A listening socket.
pub enum Listener {
    /// TCP, and TLS for its connections if that is configured.
    Tcp(TcpListener, Option<Arc<Tls>>),
    Unix(UnixListener),
}

impl Listener {
    /// Bind a TCP port with SO_REUSEPORT, beside other processes. Port 0 takes a free one.
    pub fn tcp(host: &str, port: u16, tls: Option<Arc<Tls>>) -> io::Result<Listener> {
        let address: SocketAddr = (host, port)
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address"))?;
        let socket =
            RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Listener::Tcp(socket.into(), tls))
    }

    /// Listen at a bound TCP socket that another process owns and may accept from as well. The
    /// descriptor is duplicated.
    pub fn from_fd(fd: RawFd, tls: Option<Arc<Tls>>) -> io::Result<Listener> {
        let socket = RawSocket::from(duplicate(fd)?);
        socket.set_nonblocking(true)?;
        socket.listen(BACKLOG)?;
        Ok(Listener::Tcp(socket.into(), tls))
    }

    /// Bind a Unix socket. If another process listens at the path, it keeps the connections that it
    /// has and gets no new ones.
    pub fn unix(path: &str) -> io::Result<Listener> {
        let temporary = format!("{path}.{}", std::process::id());
        let _ = std::fs::remove_file(&temporary);
        let listener = UnixListener::bind(&temporary)?;
        listener.set_nonblocking(true)?;
        std::fs::rename(&temporary, path)?;
        Ok(Listener::Unix(listener))
    }

    /// The TCP port. 0 for a Unix socket.
    pub fn port(&self) -> u16 {
        match self {
            Listener::Tcp(listener, _) => listener.local_addr().map_or(0, |address| address.port()),
            Listener::Unix(_) => 0,
        }
    }

    /// Accept the next connection. A Unix socket is for this process's user and root; a connection of
    /// another user is closed as ConnectionAborted.
    pub fn accept(&self) -> io::Result<(Socket, Client)> {
        match self {
            Listener::Tcp(listener, tls) => {
                let (stream, address) = listener.accept()?;
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                let socket = match tls {
                    None => Socket::Tcp(stream),
                    Some(tls) => Socket::Tls(Box::new(tls.accept(stream)?)),
                };
                Ok((socket, Client::at(address.ip())))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                // The socket's mode keeps other users out, unless somebody has changed it.
                let user = peer_user(stream.as_raw_fd())?;
                if user != own_user() && user != ROOT {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                Ok((Socket::Unix(stream), Client::User(user)))
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

/// The socket of one connection.
pub enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsSocket>),
    Unix(UnixStream),
}

impl Socket {
    /// Shut down the sending side. The peer's bytes can still be read.
    pub fn shutdown_write(&self) {
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Tls(stream) => stream.socket.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// The names of the client's certificate, once they are known. Empty: it has none.
    pub fn certificate_names(&self) -> Option<Vec<String>> {
        match self {
            Socket::Tls(stream) => stream.certificate_names(),
            Socket::Tcp(_) | Socket::Unix(_) => Some(Vec::new()),
        }
    }

    /// Why the TLS handshake was refused: one of a few reasons, and the error's words. None: it was
    /// not refused, or the connection ended without a word of TLS.
    pub fn handshake_refusal(&mut self) -> Option<(&'static str, String)> {
        match self {
            Socket::Tls(stream) => stream.handshake_refusal.take(),
            Socket::Tcp(_) | Socket::Unix(_) => None,
        }
    }

    /// Whether TLS holds encrypted bytes that the kernel did not take yet.
    pub fn has_unsent(&self) -> bool {
        matches!(self, Socket::Tls(stream) if stream.has_unsent())
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
