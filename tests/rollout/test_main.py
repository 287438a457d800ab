"""A controller of its own proves itself wherever callers have something to lose."""

from pathlib import Path

import pytest

from access.peer_tls import PeerError, ServerCertificate
from rollout.__main__ import own_certificate

FILES = (Path("control.crt"), Path("control.key"))


def test_controller_has_a_certificate_unless_it_is_on_loopback_without_tokens() -> None:
    """The message says which files will do."""
    assert own_certificate("127.0.0.1:0", None, None, None) is None
    assert own_certificate("0.0.0.0:7002", "secret", *FILES) == ServerCertificate(*FILES)
    for listen, token, certificate in (
        ("127.0.0.1:0", "secret", None),
        ("0.0.0.0:7002", None, None),
        ("127.0.0.1:0", None, FILES[0]),
    ):
        with pytest.raises(PeerError, match="--tls-certificate and --tls-key"):
            own_certificate(listen, token, certificate, None)
