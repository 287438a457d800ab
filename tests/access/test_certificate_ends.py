"""Tests of the warning before a certificate ends, and of making the next one."""

import asyncio
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from access.certificate_ends import (
    WARN_DAYS,
    certificate_end,
    days_left,
    end_warning,
    watch_certificates,
)
from access.peer_tls import PeerError, make_certificate

END = datetime(2027, 6, 1, 12, tzinfo=UTC)


def unix_s(days_before: float) -> float:
    """Return the time so many days before END."""
    return (END - timedelta(days=days_before)).timestamp()


@pytest.fixture
def ending(tmp_path: Path) -> Path:
    """Give the file of a certificate that ends at END."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "control.example")])
    begin = END - timedelta(days=365)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, END)
    file = tmp_path / "ending.crt"
    content = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    file.write_bytes(content)
    return file


def test_certificate_is_warned_of_a_month_before_its_end(ending: Path) -> None:
    """The text names file and day; afterwards it says that it has ended."""
    assert certificate_end(ending) == END
    assert days_left(ending, unix_s(31)) == 31
    assert end_warning(ending, unix_s(WARN_DAYS + 0.1)) == ""
    assert f"{ending} ends in 30 days (2027-06-01 12:00 UTC)" in end_warning(ending, unix_s(30))
    assert "has ended (2027-06-01 12:00 UTC)" in end_warning(ending, unix_s(-1))


def test_first_of_several_certificates_counts(ending: Path, tmp_path: Path) -> None:
    """During a change the file has the old one too, whose end is the nearer."""
    new = make_certificate(tmp_path / "keys").certificate
    both = tmp_path / "both.crt"
    both.write_bytes(new.read_bytes() + ending.read_bytes())
    assert certificate_end(both) == END


def test_certificate_that_is_made_here_has_no_end(tmp_path: Path) -> None:
    """RFC 5280 writes that as the last second of the year 9999."""
    file = make_certificate(tmp_path).certificate
    assert certificate_end(file).year == 9999
    assert end_warning(file, unix_s(0)) == ""


def test_watch_logs_what_ends_and_hands_on_the_days(
    ending: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is gone is logged too, and does not end the watch."""
    days: dict[str, float] = {}
    caplog.set_level(logging.WARNING)

    async def walk() -> None:
        seen = asyncio.Event()

        def note(name: str, left: float) -> None:
            days[name] = left
            if name == "last":
                seen.set()

        files = {"own": ending, "gone": tmp_path / "gone.crt", "last": ending}
        watching = asyncio.ensure_future(watch_certificates(files, note, lambda: unix_s(12)))
        async with asyncio.timeout(10):
            await seen.wait()
            while caplog.text.count("ends in 12 days") < 2:  # noqa: ASYNC110
                await asyncio.sleep(0)
        watching.cancel()

    asyncio.run(walk())
    assert days == {"own": 12, "last": 12}
    assert "CERTIFICATE of own" in caplog.text
    assert "gone.crt holds no PEM certificate" in caplog.text


def test_file_without_a_certificate_is_refused(tmp_path: Path) -> None:
    """The message names it."""
    (tmp_path / "text.crt").write_text("no certificate")
    with pytest.raises(PeerError, match=r"text\.crt holds no PEM certificate"):
        certificate_end(tmp_path / "text.crt")


@pytest.mark.walk
def test_next_certificate_is_made_by_a_command(tmp_path: Path) -> None:
    """It prints the file's path, and files that are there stay."""
    command = [sys.executable, "-m", "access.new_certificate", str(tmp_path / "next")]
    first, second = (subprocess.run(command, capture_output=True, check=True) for _ in range(2))
    file = Path(first.stdout.decode().strip())
    assert file == tmp_path / "next" / "control.crt"
    assert second.stdout == first.stdout
    assert (tmp_path / "next" / "control.key").stat().st_mode & 0o777 == 0o600
    assert certificate_end(file).year == 9999
