"""The databases of the store: SQLite, and PostgreSQL where it is installed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.features.ingest.postgres_server import postgres_server


@pytest.fixture(scope="session")
def postgres_address() -> Iterator[str]:
    """Run one PostgreSQL server for all tests of this process."""
    with postgres_server() as address:
        yield address


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.walk)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/monitoring.sqlite"
    import psycopg

    address: str = request.getfixturevalue("postgres_address")
    name = f"m{abs(hash(str(tmp_path)))}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return address.replace("/postgres?", f"/{name}?")
