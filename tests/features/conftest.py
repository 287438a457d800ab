"""Fixtures for this folder: a real store, empty for each test."""

from collections.abc import Iterator

import pytest
import redis

from features.online.store_server import StoreServer
from tests.servers import redis_server


@pytest.fixture(scope="session")
def running_store() -> Iterator[StoreServer]:
    """A real Redis or Valkey server for the whole session."""
    with redis_server() as server:
        yield server


@pytest.fixture
def store(running_store: StoreServer) -> StoreServer:
    """The session's store after FLUSHALL."""
    with redis.Redis.from_url(running_store.url) as client:
        client.flushall()
    return running_store
