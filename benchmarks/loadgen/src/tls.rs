//! TLS 1.2 and 1.3 over a connection's socket.

use crate::options::Options;
use crate::sockets::Wire;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

/// What the options say of certificates. An error says what is wrong with them.
pub fn config(options: &Options) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    let ca = options
        .ca
        .as_deref()
        .ok_or("--tls needs --ca FILE: whom to trust")?;
    for certificate in certificates(ca)? {
        roots
            .add(certificate)
            .map_err(|error| format!("{}: {error}", ca.display()))?;
    }
    let begun = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| format!("{}: {error}", key.display()))?;
            begun
                .with_client_auth_cert(certificates(cert)?, private)
                .map_err(|error| format!("{}: {error}", cert.display()))?
        }
        (None, None) => begun.with_no_client_auth(),
        _ => return Err("--cert and --cert-key go together".into()),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| format!("{}: {error}", file.display()))
}

pub fn begin(config: &Arc<ClientConfig>, host: &str) -> io::Result<ClientConnection> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)
}

/// Receive and decrypt. True: no more is there now.
pub fn receive(
    tls: &mut ClientConnection,
    wire: &mut Wire,
    buffer: &mut [u8],
) -> io::Result<(usize, bool)> {
    loop {
        match tls.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(count) => return Ok((count, false)),
            Err(error) => return Err(error),
        }
        if tls.read_tls(wire)? == 0 {
            return Ok((0, true));
        }
        tls.process_new_packets().map_err(io::Error::other)?;
        // Handshakes answer what they read.
        while tls.wants_write() && tls.is_handshaking() {
            match tls.write_tls(wire) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                sent => sent?,
            };
        }
    }
}

/// Encrypt and send; returns how many of *bytes* were taken.
pub fn send(tls: &mut ClientConnection, wire: &mut Wire, bytes: &[u8]) -> io::Result<usize> {
    let taken = if bytes.is_empty() {
        0
    } else {
        tls.writer().write(bytes)?
    };
    while tls.wants_write() {
        match tls.write_tls(wire) {
            Err(error) if taken > 0 && error.kind() == io::ErrorKind::WouldBlock => break,
            sent => sent?,
        };
    }
    Ok(taken)
}
