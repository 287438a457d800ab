"""Children explain versions; one that crashes, hangs or lies harms only its own answer."""

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from features.canonical import sha256_hex
from host.processes import is_alive
from monitoring.explain import children as children_module
from monitoring.explain.children import ExplainerChildren
from registry.explanation.errors import NotExplainedError
from tests.registry.explanation.test_explainer import TRAINED, small_files

pytestmark = pytest.mark.walk

REQUEST = {
    "served": None,
    "output": None,
    "reasons_max": 0,
    "language": "",
    "change": True,
}


def small_version(kind: str = "boosting") -> tuple[str, dict[str, bytes], dict[str, Any]]:
    """The id and files of a version, and a request for one of its rows."""
    files, rows = small_files(kind)
    return sha256_hex(files["manifest.json"]), files, {**REQUEST, "row": rows[TRAINED].tolist()}


class Fetches:
    """Gives files, and counts how often it was asked."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self.count = 0

    async def __call__(self) -> Mapping[str, bytes]:
        """Return the files."""
        self.count += 1
        return self.files


def test_version_is_prepared_once_for_many_requests() -> None:
    """Twenty requests at the same time start one child."""

    async def run() -> None:
        digest, files, request = small_version()
        fetches, pool = Fetches(files), ExplainerChildren()
        try:
            replies = await asyncio.gather(
                *(pool.explain(digest, fetches, request) for _ in range(20))
            )
            assert fetches.count == 1
            assert len(pool.pids) == 1
            assert all(reply == replies[0] for reply in replies)
        finally:
            await pool.close()
        assert pool.pids == []

    asyncio.run(run())


def test_version_that_was_used_longest_ago_makes_room() -> None:
    """Its process ends, and it is prepared again when it is asked for."""

    async def run() -> None:
        versions = [small_version(kind) for kind in ("boosting", "forest", "logistic")]
        fetches = [Fetches(files) for _, files, _ in versions]
        pool = ExplainerChildren(most=2)
        try:
            for (digest, _, request), fetch in zip(versions, fetches, strict=True):
                await pool.explain(digest, fetch, request)
                first = pool.pids[0]
            assert len(pool.pids) == 2
            digest, _, request = versions[0]
            await pool.explain(digest, fetches[0], request)
            assert [fetch.count for fetch in fetches] == [2, 1, 1]
            assert not is_alive(first)
        finally:
            await pool.close()

    asyncio.run(run())


def test_child_that_dies_is_replaced() -> None:
    """The request that it was answering gets a sentence, and the next one an answer."""

    async def run() -> None:
        digest, files, request = small_version()
        pool = ExplainerChildren()
        try:
            await pool.explain(digest, Fetches(files), request)
            os.kill(pool.pids[0], signal.SIGSTOP)
            asking = asyncio.ensure_future(pool.explain(digest, Fetches(files), request))
            await asyncio.sleep(0)
            os.kill(pool.pids[0], signal.SIGKILL)
            with pytest.raises(NotExplainedError, match="ended with SIGKILL"):
                await asking
            assert (await pool.explain(digest, Fetches(files), request))["decision"] == "NOT_KNOWN"
        finally:
            await pool.close()

    asyncio.run(run())


def test_child_that_hangs_is_ended() -> None:
    """After its time, with the way out; the next request has a new one."""

    async def run() -> None:
        digest, files, request = small_version()
        pool = ExplainerChildren(answer_s=0.5)
        try:
            await pool.explain(digest, Fetches(files), request)
            hanging = pool.pids[0]
            os.kill(hanging, signal.SIGSTOP)
            with pytest.raises(NotExplainedError, match=r"no explanation after 0\.5 s"):
                await pool.explain(digest, Fetches(files), request)
            assert not is_alive(hanging)
            await pool.explain(digest, Fetches(files), request)
        finally:
            await pool.close()

    asyncio.run(run())


def test_caller_who_hangs_up_harms_no_other() -> None:
    """Two wait for one child: one hangs up, and the other gets its own answer."""

    async def run() -> None:
        digest, files, request = small_version()
        pool = ExplainerChildren()
        try:
            await pool.explain(digest, Fetches(files), request)
            os.kill(pool.pids[0], signal.SIGSTOP)
            first = asyncio.ensure_future(pool.explain(digest, Fetches(files), request))
            second = asyncio.ensure_future(
                pool.explain(digest, Fetches(files), {**request, "change": False})
            )
            await asyncio.sleep(0)
            second.cancel()
            os.kill(pool.pids[0], signal.SIGCONT)
            assert (await first)["output"] == "churn"
            with pytest.raises(asyncio.CancelledError):
                await second
        finally:
            await pool.close()

    asyncio.run(run())


def test_version_that_cannot_be_explained_is_prepared_once() -> None:
    """Its reason is kept, and no process stays."""

    async def run() -> None:
        digest, files, request = small_version()
        broken = Fetches({**files, "model.onnx": b"x"})
        pool = ExplainerChildren()
        try:
            for _ in range(2):
                with pytest.raises(NotExplainedError, match=r"model\.onnx has 1 bytes"):
                    await pool.explain(digest, broken, request)
            assert broken.count == 1
            assert pool.pids == []
        finally:
            await pool.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("print('no json', file=s)", "wrote no explanation"),
        ("print('[1, 2]', file=s)", "wrote no explanation"),
        ("s.write('x' * 9_000_000)", "wrote no explanation|ended with"),
        ("pass", "ended with exit code 0"),
    ],
)
def test_child_that_lies_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, message: str
) -> None:
    """A hostile version may write whatever it likes over the socket."""
    (tmp_path / "lying_child.py").write_text(
        "import socket, sys\n"
        "(fd,) = [a.split('=')[1] for a in sys.argv if a.startswith('--channel-fd')]\n"
        "with socket.socket(fileno=int(fd)).makefile('w') as s:\n"
        f"    {program}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(children_module, "MODULE", "lying_child")

    async def run() -> None:
        digest, files, request = small_version()
        pool = ExplainerChildren()
        try:
            with pytest.raises(NotExplainedError, match=message):
                await pool.explain(digest, Fetches(files), request)
            assert pool.pids == []
        finally:
            await pool.close()

    asyncio.run(run())
