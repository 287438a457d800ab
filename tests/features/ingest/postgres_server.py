"""A real PostgreSQL server in a temporary folder, on a Unix socket, ended by its pid."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

START_S_MAX = 60


def _program(name: str) -> str:
    """Return the path of a program of PostgreSQL; Debian keeps the server's out of PATH."""
    found = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None
    )
    if found is None:
        # CI installs it (.ci/run); a developer without it runs the other tests.
        assert not os.environ.get("CI"), f"{name} is not installed: apt-get install postgresql"
        pytest.skip(f"{name} is not installed")
    return str(Path(found).resolve())


@contextmanager
def postgres_server() -> Iterator[str]:
    """Run a server while the block lasts, and give the address of its database `postgres`.

    PostgreSQL refuses to run as root, so root runs it as the user postgres.
    """
    initdb, postgres = _program("initdb"), _program("postgres")
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="turnout-pg-", dir="/tmp") as name:
        if user is not None:
            shutil.chown(name, user)
        data = f"{name}/data"
        options = ["-D", data, "-A", "trust", "-U", "postgres", "-N", "--no-instructions"]
        subprocess.run([initdb, *options], check=True, user=user, cwd=name, capture_output=True)
        server = subprocess.Popen(
            [postgres, "-D", data, "-k", name, "-c", "listen_addresses=", "-c", "fsync=off"],
            user=user,
            cwd=name,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        address = f"postgresql://postgres@/postgres?host={name}"
        try:
            _wait(server, address)
            yield address
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)


def _wait(server: subprocess.Popen[bytes], address: str) -> None:
    """Return once the server answers."""
    end = time.monotonic() + START_S_MAX
    while True:
        try:
            psycopg.connect(address, connect_timeout=5).close()
        except psycopg.OperationalError:
            assert server.poll() is None, "PostgreSQL ended at once"
            assert time.monotonic() < end, f"no PostgreSQL within {START_S_MAX} s"
            time.sleep(0.05)
        else:
            return
