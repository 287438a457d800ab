"""Settings that contradict each other, or name what is not there, are refused at the start."""

from pathlib import Path

import pytest

import gateway.__main__ as command
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


@pytest.mark.parametrize("key", ["12" * 32, "1e" + "11" * 31, '"' + "ab" * 32 + '"'])
def test_command_line_takes_a_key_that_looks_like_a_number(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version key of digits alone is a text, with or without JSON's quotes."""
    seen: list[Settings] = []

    async def run(settings: Settings, _announce: Path | None) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr(command, "_run", run)
    line = ["--set", f"version_public_key={key}", "--set", "workers=3"]
    assert command.main(line) == 0
    assert (seen[0].version_public_key, seen[0].workers) == (key.strip('"'), 3)
