"""Certificates end. A program says so a month before: in its log, and a gateway in its metrics."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from access.peer_tls import PeerError

log = logging.getLogger(__name__)

WARN_DAYS = 30
"""How long before its end a certificate is warned of."""
CHECK_S = 6 * 3_600.0
"""Time between two looks at the certificates."""
DAY = timedelta(days=1)


def certificate_end(file: Path) -> datetime:
    """Return when the first of the certificates in *file* ends. Raises PeerError."""
    try:
        certificates = x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError) as error:
        raise PeerError(f"{file} holds no PEM certificate that can be read: {error}") from error
    return min(certificate.not_valid_after_utc for certificate in certificates)


def days_left(file: Path, unix_s: float) -> float:
    """Return the days until the first certificate in *file* ends; below 0: it has ended.

    Raises PeerError.
    """
    return (certificate_end(file) - datetime.fromtimestamp(unix_s, UTC)) / DAY


def end_warning(file: Path, unix_s: float) -> str:
    """Return what to tell people of the end of a certificate in *file*; empty: it is far away.

    Raises PeerError.
    """
    left = days_left(file, unix_s)
    if left > WARN_DAYS:
        return ""
    when = "has ended" if left < 0 else f"ends in {left:.0f} days"
    return (
        f"a certificate in {file} {when} ({certificate_end(file):%Y-%m-%d %H:%M} UTC); nobody who "
        "checks it connects then. docs/operating.md says how to renew it without a stop"
    )


async def watch_certificates(
    files: Mapping[str, Path],
    on_days_left: Callable[[str, float], None] = lambda _name, _days: None,
    unix_s: Callable[[], float] = time.time,
) -> None:
    """Look at certificates every CHECK_S until cancelled, and log what ends soon.

    files         name -> PEM file.
    on_days_left  called with each name and the days left.
    """
    while True:
        for name, file in files.items():
            try:
                warning = await asyncio.to_thread(end_warning, file, unix_s())
                on_days_left(name, await asyncio.to_thread(days_left, file, unix_s()))
            except PeerError as error:
                warning = str(error)
            if warning:
                log.warning("CERTIFICATE of %s: %s", name, warning)
        await asyncio.sleep(CHECK_S)
