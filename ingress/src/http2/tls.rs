//! TLS and mTLS: certificates from files, read anew when they change, without a connection dropped.

use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, Stream};

/// Where the certificates lie (PEM).
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Ours, with those that lead to the authority.
    pub certificate: String,
    /// Its private key.
    pub key: String,
    /// Whose certificates clients must have; empty: clients need none.
    pub client_authority: String,
}

/// What new connections are greeted with.
pub struct Tls {
    files: TlsFiles,
    now: Mutex<(Arc<ServerConfig>, Vec<Option<SystemTime>>)>,
}

impl TlsFiles {
    fn changed_at(&self) -> Vec<Option<SystemTime>> {
        [&self.certificate, &self.key, &self.client_authority]
            .iter()
            .map(|path| fs::metadata(path).and_then(|meta| meta.modified()).ok())
            .collect()
    }

    fn config(&self) -> Result<ServerConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificates = certificates(&self.certificate)?;
        let mut pem = reader(&self.key)?;
        let key = rustls_pemfile::private_key(&mut pem)
            .map_err(|error| format!("{}: {error}", self.key))?
            .ok_or_else(|| format!("{} holds no private key", self.key))?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = if self.client_authority.is_empty() {
            builder.with_no_client_auth()
        } else {
            let mut roots = RootCertStore::empty();
            for certificate in self::certificates(&self.client_authority)? {
                roots.add(certificate).map_err(|error| error.to_string())?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| format!("{}: {error}", self.client_authority))?;
            builder.with_client_cert_verifier(verifier)
        };
        let mut config = builder
            .with_single_cert(certificates, key)
            .map_err(|error| format!("{} and {}: {error}", self.certificate, self.key))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

impl Tls {
    /// Read the files; what is wrong with them, in words.
    pub fn new(files: TlsFiles) -> Result<Tls, String> {
        let changed_at = files.changed_at();
        let config = files.config()?;
        Ok(Tls {
            files,
            now: Mutex::new((Arc::new(config), changed_at)),
        })
    }

    /// Read them again if they changed. Files that are no good, or half written, change nothing.
    pub fn refresh(&self) {
        let changed_at = self.files.changed_at();
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.1 != changed_at {
            if let Ok(config) = self.files.config() {
                *now = (Arc::new(config), changed_at);
            }
        }
    }

    /// A connection that was just accepted.
    pub fn greet(&self, socket: TcpStream) -> io::Result<TlsSocket> {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let session = ServerConnection::new(Arc::clone(&now.0)).map_err(io::Error::other)?;
        Ok(TlsSocket {
            socket,
            session,
        })
    }
}

fn reader(path: &str) -> Result<BufReader<fs::File>, String> {
    fs::File::open(path).map(BufReader::new).map_err(|error| format!("{path}: {error}"))
}

fn certificates(path: &str) -> Result<Vec<rustls::pki_types::CertificateDer<'static>>, String> {
    let found = rustls_pemfile::certs(&mut reader(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("{path}: {error}"))?;
    if found.is_empty() {
        return Err(format!("{path} holds no certificate"));
    }
    Ok(found)
}

/// A socket whose bytes are encrypted.
pub struct TlsSocket {
    /// Underneath.
    pub socket: TcpStream,
    session: ServerConnection,
}

impl TlsSocket {
    /// Encrypted bytes that the socket did not take yet.
    pub fn unsent(&self) -> bool {
        self.session.wants_write()
    }
}

impl Read for TlsSocket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match Stream::new(&mut self.session, &mut self.socket).read(into) {
            // A peer that closes without saying so first is gone all the same.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            other => other,
        }
    }
}

impl Write for TlsSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Stream::new(&mut self.session, &mut self.socket).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}
