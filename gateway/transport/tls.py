"""TLS on grpcio's door: the same files and rules as on the native one (ingress/src/http2/tls.rs).

Certificates are read anew when their files change; connections that are open go on.
"""

from collections.abc import Sequence
from pathlib import Path

import grpc

from gateway.settings import Settings

ModificationTimes = tuple[int, ...]


class TlsFiles:
    """Where the certificates lie, and when they were last read."""

    def __init__(self, settings: Settings) -> None:
        self._certificate = Path(settings.tls_certificate)
        self._key = Path(settings.tls_key)
        authority = settings.tls_client_authority
        self._authority = Path(authority) if authority else None
        self._mtimes = self._read_mtimes()

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a port is opened with; OSError when a file cannot be read."""
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
        """Asked by grpcio at each new connection; None: nothing changed, or nothing usable."""
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
