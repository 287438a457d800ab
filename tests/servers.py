"""Real servers for tests: started on 127.0.0.1, ended by pid."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from features.online.store_server import StoreServer, find_or_start


@contextmanager
def redis_server(port: int | None = None) -> Iterator[StoreServer]:
    """Run a real Redis or Valkey while the block lasts; `.url` says where.

    port  None: a free one. Name it to start a store again where one was killed.
    """
    with tempfile.TemporaryDirectory(prefix="turnout-store-") as folder:
        server = find_or_start(None, Path(folder), port=port)
        try:
            yield server
        finally:
            server.stop()
