"""Servers of pushed rows for tests: in this process, or in one of their own that can be killed."""

import asyncio
import functools
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, ParamSpec

import redis

from features.entity_ids import id_hashes
from features.offline import OfflineStore
from features.online.store_client import store_client
from features.push.server import STORE_S, FeaturesServer, serve_features
from features.push.view_editions import ReadViews, ServedViews
from features.rows import ViewRows
from features.views import View
from tests.features.small_views import plan_view
from turnout_client import FeatureRow, FeaturesClient

Parameters = ParamSpec("Parameters")

VIEW = plan_view()
SYSTEM = "0123456789abcdef"
DAY_MS = 86_400_000


def in_event_loop(
    test: Callable[Parameters, Coroutine[Any, Any, None]],
) -> Callable[Parameters, None]:
    """Run a test that is a coroutine function in an event loop of its own."""

    @functools.wraps(test)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> None:
        asyncio.run(test(*arguments, **options))

    return run


def now_ms() -> int:
    """The present, Unix ms."""
    return time.time_ns() // 1_000_000


def address_of(port: int) -> str:
    """The address of a server on this host."""
    return f"127.0.0.1:{port}"


def feature_row(
    event_id: str, entity: str = "S1", spend: float = 1.0, event_ms: int | None = None
) -> FeatureRow:
    """A row of the plan view, of now."""
    when = now_ms() if event_ms is None else event_ms
    return FeatureRow(entity, when, {"spend": spend, "kind": "prepaid"}, event_id)


@asynccontextmanager
async def push_server(
    url: str,
    folder: Path,
    *,
    views: Sequence[View] = (VIEW,),
    identities: Sequence[Path] = (),
    rows_s: int = 1_000_000,
    store_s: float = STORE_S,
    read: ReadViews | None = None,
) -> AsyncIterator[FeaturesServer]:
    """Serve in this process, in plain text.

    read  returns the views; None: *views* are served.
    """

    async def read_given() -> ServedViews:
        return ServedViews(SYSTEM, tuple(views))

    server = await serve_features(
        "127.0.0.1:0",
        read_views=read or read_given,
        offline=OfflineStore(folder),
        client=store_client(url, timeout_s=store_s),
        identities=identities,
        rows_s=rows_s,
    )
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def push_client(
    url: str, folder: Path, *, views: Sequence[View] = (VIEW,), rows_s: int = 1_000_000
) -> AsyncIterator[FeaturesClient]:
    """Serve in this process, and give a client."""
    async with (
        push_server(url, folder, views=views, rows_s=rows_s) as server,
        FeaturesClient(f"127.0.0.1:{server.port}") as client,
    ):
        yield client


@contextmanager
def push_process(url: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve in a process of its own; yield it and its address. It is killed at the end."""
    command = [sys.executable, "-m", "tests.features.push.push_servers", url, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def online_spends(client: redis.Redis, *entities: str, view: View = VIEW) -> list[float | None]:
    """Return the spend in the online row of each entity, as a gateway reads it; None: no row."""
    layout = ViewRows(view)
    ids = [entity.encode() for entity in entities]
    position = [feature.name for feature in view.features].index("spend")
    replies = [
        item if isinstance(item, bytes) else None for item in client.mget(layout.store_keys(ids))
    ]
    decoded = layout.decode(replies, id_hashes(ids), now_ms())
    return [
        None if flags & 1 else float(values[position])
        for values, flags in zip(decoded.values, decoded.flags, strict=True)
    ]


def offline_spends(folder: Path, *entities: str, view: View = VIEW) -> list[float | None]:
    """Return the spend in the newest offline row of each entity; None: no row."""
    newest = OfflineStore(folder).latest(view)
    position = [feature.name for feature in view.features].index("spend")
    found = dict(zip(newest.ids, newest.values[:, position].tolist(), strict=True))
    return [found.get(entity.encode()) for entity in entities]


def offline_count(folder: Path, *entities: str) -> int:
    """Return the number of offline rows of some entities."""
    return len(OfflineStore(folder).history(VIEW, entities).ids)


async def _serve(url: str, folder: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with push_server(url, folder) as server:
        print(server.port, flush=True)  # noqa: T201  the parent reads it
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], Path(sys.argv[2])))
