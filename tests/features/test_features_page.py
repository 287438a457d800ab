"""Tests that docs/features.md is true: its snippets run, and its numbers are the settings."""

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from features.online.reader import OnlineSettings
from features.views import View
from tests.features.push.push_servers import push_server
from tests.servers import redis_server

PAGE = (Path(__file__).parents[2] / "docs" / "features.md").read_text()


WRITTEN = "127.0.0.1:7003"
"""The address of the server of pushed rows on the page."""


@contextmanager
def pushes_taken(view: View, offline: Path) -> Iterator[str]:
    """Take pushed rows of *view* in a thread, with a store of its own; yield the address."""
    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    ports: list[int] = []

    async def serve(url: str) -> None:
        async with push_server(url, offline, views=[view]) as server:
            ports.append(server.port)
            ready.set()
            await stop.wait()

    with redis_server() as store:
        thread = threading.Thread(target=loop.run_until_complete, args=[serve(store.url)])
        thread.start()
        assert ready.wait(20)
        try:
            yield f"127.0.0.1:{ports[0]}"
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()


@pytest.mark.walk
def test_features_page_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All snippets run in one namespace, one after the other, in an empty folder."""
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(snippets) == 7
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for snippet in snippets:
        if WRITTEN not in snippet:
            exec(compile(snippet, "docs/features.md", "exec"), names)
            continue
        usage = names["usage"]
        assert isinstance(usage, View)
        with pushes_taken(usage, tmp_path / "offline") as address:
            text = snippet.replace(WRITTEN, address)
            exec(compile(text, "docs/features.md", "exec"), names)


def test_features_page_numbers_are_the_settings() -> None:
    """The numbers of failures and of the probe pause are those of OnlineSettings."""
    settings = OnlineSettings()
    assert f"after {settings.failures_to_open} failures" in PAGE
    assert f"a PING every {settings.probe_ms} ms" in PAGE
