//! TLS and mutual TLS. Certificates are read from files, and read again when the files change.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{Error, RootCertStore, ServerConfig, ServerConnection, Stream};
use webpki::EndEntityCert;

/// Paths of the PEM files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate, followed by intermediate certificates.
    pub certificate: String,
    /// The private key of the server's certificate.
    pub key: String,
    /// The authority that has to have signed the clients' certificates. Empty: clients need none.
    pub client_authority: String,
}

/// The TLS configuration for new connections. Connections that are open keep the one they began with.
pub struct Tls {
    files: TlsFiles,
    current: Mutex<(Arc<ServerConfig>, Vec<Option<SystemTime>>)>,
}

impl TlsFiles {
    /// When each file was changed. None: it cannot be read.
    fn changed_at(&self) -> Vec<Option<SystemTime>> {
        [&self.certificate, &self.key, &self.client_authority]
            .iter()
            .map(|path| fs::metadata(path).and_then(|meta| meta.modified()).ok())
            .collect()
    }

    fn config(&self) -> Result<ServerConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificates = certificates(&self.certificate)?;
        let key = match PrivateKeyDer::from_pem_file(&self.key) {
            Err(pem::Error::NoItemsFound) => Err(format!("{} holds no private key", self.key)),
            other => other.map_err(|error| format!("{}: {error}", self.key)),
        }?;
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
    /// Read the files. The error says what is wrong with them.
    pub fn new(files: TlsFiles) -> Result<Tls, String> {
        let changed_at = files.changed_at();
        let config = files.config()?;
        Ok(Tls {
            files,
            current: Mutex::new((Arc::new(config), changed_at)),
        })
    }

    /// Read the files again if they changed. Files that are invalid or half written are ignored.
    pub fn refresh(&self) {
        let changed_at = self.files.changed_at();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.1 != changed_at {
            if let Ok(config) = self.files.config() {
                *current = (Arc::new(config), changed_at);
            }
        }
    }

    /// Begin TLS on a connection that was just accepted.
    pub fn accept(&self, socket: TcpStream) -> io::Result<TlsSocket> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let session = ServerConnection::new(Arc::clone(&current.0)).map_err(io::Error::other)?;
        Ok(TlsSocket {
            socket,
            session,
            handshake_refusal: None,
        })
    }
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("{path}: {error}"))?;
    if certificates.is_empty() {
        return Err(format!("{path} holds no certificate"));
    }
    Ok(certificates)
}

/// The reasons of gateway.transport.server.HandshakeRefusal, by what the library says.
fn refusal_reason(error: &Error) -> &'static str {
    match error {
        Error::NoCertificatesPresented => "no_certificate",
        Error::InvalidCertificate(_) => "certificate_refused",
        Error::AlertReceived(_) => "client_refused",
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => "no_common_protocol",
        Error::InvalidMessage(_) => "not_tls",
        _ => "other",
    }
}

/// A TCP socket and its TLS session.
pub struct TlsSocket {
    /// The TCP socket under the session.
    pub socket: TcpStream,
    session: ServerConnection,
    /// Why the handshake was refused: a reason, and the error's words.
    pub handshake_refusal: Option<(&'static str, String)>,
}

impl TlsSocket {
    /// The DNS and URI names of the client's certificate, which the handshake has verified. None: the
    /// handshake is not over.
    pub fn certificate_names(&self) -> Option<Vec<String>> {
        if self.session.is_handshaking() {
            return None;
        }
        let certificate = self.session.peer_certificates().and_then(|chain| chain.first());
        let parsed = certificate.and_then(|der| EndEntityCert::try_from(der).ok());
        Some(parsed.map_or_else(Vec::new, |certificate| {
            let names = certificate.valid_dns_names().chain(certificate.valid_uri_names());
            names.map(str::to_owned).collect()
        }))
    }

    /// Note an error of TLS during the handshake. Writing reads too, so it may meet the error first.
    fn note_refusal(&mut self, error: &io::Error) {
        let error = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        if let (true, Some(error)) = (self.session.is_handshaking(), error) {
            self.handshake_refusal = Some((refusal_reason(error), error.to_string()));
        }
    }

    /// Whether the session holds encrypted bytes that the socket did not take yet.
    pub fn has_unsent(&self) -> bool {
        self.session.wants_write()
    }
}

impl Read for TlsSocket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let result = Stream::new(&mut self.session, &mut self.socket).read(into);
        if let Err(error) = &result {
            self.note_refusal(error);
        }
        match result {
            // Many peers close TCP without TLS's close_notify. That is an end like any other.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            other => other,
        }
    }
}

impl Write for TlsSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = Stream::new(&mut self.session, &mut self.socket).write(bytes);
        if let Err(error) = &result {
            self.note_refusal(error);
        }
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}
