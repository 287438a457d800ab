//! Addresses of servers, and sockets that never block.

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

#[derive(Clone, Debug)]
pub enum Target {
    Tcp { address: SocketAddr, name: String },
    Unix(PathBuf),
}

/// A TCP or Unix socket.
pub trait Socket: Read + Write + Source {}
impl<S: Read + Write + Source> Socket for S {}

impl Target {
    /// Reads `HOST:PORT` or `unix:PATH`. A host name is resolved here, once.
    pub fn parse(text: &str) -> Result<Target, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Target::Unix(path.trim_start_matches("//").into()));
        }
        let wrong = |why: &str| format!("{text:?} is no HOST:PORT and no unix:PATH ({why})");
        let mut addresses = text.to_socket_addrs().map_err(|error| wrong(&error.to_string()))?;
        let address = addresses.next().ok_or_else(|| wrong("the name has no address"))?;
        Ok(Target::Tcp { address, name: text.to_owned() })
    }

    /// Returns what calls name as their `:authority`.
    pub fn authority(&self) -> &str {
        match self {
            Target::Tcp { name, .. } => name,
            Target::Unix(_) => "localhost",
        }
    }

    /// Begins to connect. The socket becomes writable when the connection exists.
    pub fn connect(&self) -> io::Result<Box<dyn Socket>> {
        match self {
            Target::Tcp { address, .. } => {
                let stream = TcpStream::connect(*address)?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Target::Unix(path) => Ok(Box::new(UnixStream::connect(path)?)),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_addresses_or_paths() {
        assert_eq!(Target::parse("127.0.0.1:8500").unwrap().authority(), "127.0.0.1:8500");
        assert!(matches!(Target::parse("unix:/a/b"), Ok(Target::Unix(p)) if p.ends_with("a/b")));
        assert!(matches!(Target::parse("unix:///a"), Ok(Target::Unix(p)) if p.as_os_str() == "/a"));
        assert!(Target::parse("nowhere").unwrap_err().contains("HOST:PORT"));
    }
}
