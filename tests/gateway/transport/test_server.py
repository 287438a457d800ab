"""The setting `ingress` selects the server implementation that is created."""

import asyncio
import logging

import pytest

from gateway import __main__ as command
from gateway import build
from gateway.build import create_server
from gateway.errors import SettingsError
from gateway.ingress_choice import IngressChoice, is_built
from gateway.internal_error_log import InternalErrorLog
from gateway.native_library import load_native_library
from gateway.settings import Settings
from host.clock import SystemClock

LOG = InternalErrorLog(logging.getLogger("quiet"))


def created_kind(ingress: str) -> IngressChoice:
    """Return the kind of the server that is created for a setting."""

    async def build() -> IngressChoice:
        ingress_server = create_server(
            Settings(ingress=ingress), SystemClock(), LOG, lambda *_: None, {}, lambda *_: None
        )
        await ingress_server.close(0.0)
        return ingress_server.kind

    return asyncio.run(build())


def test_create_server_auto_is_native_where_built_and_grpcio_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The setting grpcio is grpcio in both cases."""
    assert is_built() == (load_native_library() is not None)
    assert created_kind("auto") == (IngressChoice.NATIVE if is_built() else IngressChoice.GRPCIO)
    assert created_kind("grpcio") == IngressChoice.GRPCIO
    monkeypatch.setattr(build, "load_native_library", lambda: None)
    assert created_kind("auto") == IngressChoice.GRPCIO


def test_native_ingress_is_refused_at_start_when_it_is_not_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worker refuses it, and `python -m gateway` exits with 2 and says how to build it."""
    monkeypatch.setattr(build, "load_native_library", lambda: None)
    monkeypatch.setattr(command, "is_built", lambda: False)
    with pytest.raises(SettingsError, match="`make ingress` builds it"):
        created_kind("native")
    assert command.main(["--ingress", "native"]) == 2
    assert "`make ingress` builds it" in capsys.readouterr().err


def test_ingress_option_overrides_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--ingress` wins over `--set ingress=`."""
    ingresses: list[str] = []

    async def run(settings: Settings, announce: object) -> int:
        del announce
        ingresses.append(settings.ingress)
        return 0

    monkeypatch.setattr(command, "_run", run)
    assert command.main(["--set", "ingress=auto", "--ingress", "grpcio"]) == 0
    assert command.main([]) == 0
    assert ingresses == ["grpcio", "auto"]
