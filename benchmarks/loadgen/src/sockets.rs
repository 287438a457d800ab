//! Where the server is, and the bytes to and from it.

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

#[derive(Clone, Debug)]
pub enum Target {
    Tcp { address: SocketAddr, name: String },
    Unix(PathBuf),
}

impl Target {
    /// Read `HOST:PORT` or `unix:PATH`; a name is looked up here, once.
    pub fn parse(text: &str) -> Result<Target, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Target::Unix(path.trim_start_matches("//").into()));
        }
        let address = text
            .to_socket_addrs()
            .map_err(|error| format!("{text:?} is no HOST:PORT and no unix:PATH ({error})"))?
            .next()
            .ok_or_else(|| format!("{text:?} has no address"))?;
        Ok(Target::Tcp {
            address,
            name: text.to_owned(),
        })
    }

    /// What calls name as their `:authority`.
    pub fn authority(&self) -> &str {
        match self {
            Target::Tcp { name, .. } => name,
            Target::Unix(_) => "localhost",
        }
    }

    /// Without the port, as certificates say it.
    #[cfg(any(feature = "tls", test))]
    pub fn host(&self) -> &str {
        let name = self.authority();
        name.rsplit_once(':').map_or(name, |(host, _)| host)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Tcp { name, .. } => out.write_str(name),
            Target::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

pub enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One connection's socket, encrypted or not.
pub struct Socket {
    wire: Wire,
    #[cfg(feature = "tls")]
    tls: Option<Box<rustls::ClientConnection>>,
}

/// What makes sockets: where to, and the certificates.
#[derive(Clone)]
pub struct Dialer {
    pub target: Target,
    #[cfg(feature = "tls")]
    pub tls: Option<std::sync::Arc<rustls::ClientConfig>>,
}

impl Dialer {
    /// Begin to connect; it is done when the socket becomes writable.
    pub fn dial(&self) -> io::Result<Socket> {
        let wire = match &self.target {
            Target::Tcp { address, .. } => {
                let stream = TcpStream::connect(*address)?;
                stream.set_nodelay(true)?;
                Wire::Tcp(stream)
            }
            Target::Unix(path) => Wire::Unix(UnixStream::connect(path)?),
        };
        #[cfg(feature = "tls")]
        let tls = match &self.tls {
            Some(config) => Some(Box::new(crate::tls::begin(config, self.target.host())?)),
            None => None,
        };
        Ok(Socket {
            wire,
            #[cfg(feature = "tls")]
            tls,
        })
    }
}

impl Socket {
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match &mut self.wire {
            Wire::Tcp(stream) => stream.register(registry, token, both),
            Wire::Unix(stream) => stream.register(registry, token, both),
        }
    }

    /// Receive into *buffer*; 0 is the end. True: no more is there now.
    #[inline]
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            return crate::tls::receive(tls, &mut self.wire, buffer);
        }
        let count = self.wire.read(buffer)?;
        Ok((count, count < buffer.len()))
    }

    /// Send from the front of *bytes*; returns how many were taken.
    #[inline]
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            return crate::tls::send(tls, &mut self.wire, bytes);
        }
        self.wire.write(bytes)
    }

    /// Whether bytes taken before still wait in here.
    pub fn holds_bytes(&self) -> bool {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return tls.wants_write();
        }
        false
    }
}

impl Read for Wire {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(stream) => stream.read(buffer),
            Wire::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(stream) => stream.write(bytes),
            Wire::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_addresses_or_paths() {
        let target = Target::parse("127.0.0.1:8500").unwrap();
        assert_eq!(
            (target.authority(), target.host()),
            ("127.0.0.1:8500", "127.0.0.1")
        );
        assert!(matches!(Target::parse("unix:/a/b"), Ok(Target::Unix(p)) if p.ends_with("a/b")));
        assert!(matches!(Target::parse("unix:///a"), Ok(Target::Unix(p)) if p.as_os_str() == "/a"));
        assert!(Target::parse("nowhere").unwrap_err().contains("HOST:PORT"));
    }
}
