"""TLS of the grpcio server: files and rules as in the native server (ingress/src/http2/tls.rs).

Certificates are reloaded when their files change; open connections go on.
"""

from collections.abc import Sequence
from pathlib import Path

import grpc

from gateway.settings import Settings

ModificationTimes = tuple[int, ...]


class TlsFiles:
    """The files tls_certificate, tls_key and tls_client_authority, reloaded when they change."""

    def __init__(self, settings: Settings) -> None:
        self._certificate = Path(settings.tls_certificate)
        self._key = Path(settings.tls_key)
        authority = settings.tls_client_authority
        self._authority = Path(authority) if authority else None
        self._mtimes = self._read_mtimes()

    def credentials(self) -> grpc.ServerCredentials:
        """Return the credentials to open a port with; OSError when a file cannot be read."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            self._reload_if_changed,  # type: ignore[arg-type]  # None: no change
            require_client_authentication=self._authority is not None,
        )

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        pair = (self._key.read_bytes(), self._certificate.read_bytes())
        authority = self._authority.read_bytes() if self._authority else None
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=authority)

    def _reload_if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return new certificates, or None when the files are unchanged or unreadable.

        grpcio calls it for each new connection.
        """
        changed = self._read_mtimes()
        if changed == self._mtimes:
            return None
        try:
            newer = self._configuration()
        except OSError:
            return None
        self._mtimes = changed
        return newer

    def _read_mtimes(self) -> ModificationTimes:
        files: Sequence[Path | None] = (self._certificate, self._key, self._authority)
        return tuple(
            path.stat().st_mtime_ns if path is not None and path.exists() else 0 for path in files
        )
