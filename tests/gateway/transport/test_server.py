"""Which front door is opened: the native one where it is, what was asked for, or a clear no."""

import asyncio
import logging

import pytest

from gateway import __main__ as command
from gateway import build
from gateway.build import create_server
from gateway.clock import SystemClock
from gateway.errors import SettingsError
from gateway.ingress_choice import IngressChoice, is_built
from gateway.internal_error_log import InternalErrorLog
from gateway.native_library import load_native_library
from gateway.settings import Settings

LOG = InternalErrorLog(logging.getLogger("quiet"))


def kind(ingress: str) -> IngressChoice:
    """The kind of the door that is built for a setting."""

    async def build() -> IngressChoice:
        door = create_server(Settings(ingress=ingress), SystemClock(), LOG, lambda *_: None, {})
        await door.close(0.0)
        return door.kind

    return asyncio.run(build())


def test_auto_is_native_where_it_is_built_and_grpcio_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And grpcio is grpcio, built or not."""
    assert is_built() == (load_native_library() is not None)
    assert kind("auto") == (IngressChoice.NATIVE if is_built() else IngressChoice.GRPCIO)
    assert kind("grpcio") == IngressChoice.GRPCIO
    monkeypatch.setattr(build, "load_native_library", lambda: None)
    assert kind("auto") == IngressChoice.GRPCIO


def test_native_that_is_not_there_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the worker, and by `python -m gateway` already: exit code 2 and the way out."""
    monkeypatch.setattr(build, "load_native_library", lambda: None)
    monkeypatch.setattr(command, "is_built", lambda: False)
    with pytest.raises(SettingsError, match="`make ingress` builds it"):
        kind("native")
    assert command.main(["--ingress", "native"]) == 2
    assert "`make ingress` builds it" in capsys.readouterr().err


def test_the_flag_goes_over_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """As --set would."""
    seen: list[str] = []

    async def run(settings: Settings, announce: object) -> int:
        del announce
        seen.append(settings.ingress)
        return 0

    monkeypatch.setattr(command, "_run", run)
    assert command.main(["--set", "ingress=auto", "--ingress", "grpcio"]) == 0
    assert command.main([]) == 0
    assert seen == ["grpcio", "auto"]
