"""Settings that contradict each other, or name what is not there, are refused at the start."""

from pathlib import Path

import pytest

from gateway.errors import SettingsError
from gateway.settings import Settings


def test_token_without_the_certificate_of_the_registry_is_refused() -> None:
    """The message names the setting and the file to copy."""
    with pytest.raises(SettingsError, match="registry_certificate is not") as refused:
        Settings(registry="far:7001", registry_token_file="gateway.token")
    assert "keys/control.crt" in str(refused.value)


def test_certificate_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Before a worker starts, which would end and be restarted for ever."""
    settings = Settings(registry_certificate=str(tmp_path / "control.crt"))
    with pytest.raises(SettingsError, match="there is no file"):
        settings.certificate_of_registry  # noqa: B018
    (tmp_path / "control.crt").write_text("x")
    assert settings.certificate_of_registry == tmp_path / "control.crt"
    assert Settings().certificate_of_registry is None


def test_version_key_has_64_hex_digits() -> None:
    """Upper case and other lengths are refused; an empty setting pins nothing."""
    assert Settings(version_public_key="ab" * 32).version_key == bytes.fromhex("ab" * 32)
    assert Settings().version_key is None
    for text in ("ab" * 31, "AB" * 32, "zz" * 32, "ab" * 32 + "\n"):
        with pytest.raises(SettingsError, match="64 lower-case hex digits"):
            Settings(version_public_key=text)
