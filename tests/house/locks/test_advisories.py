"""`make advisories` says "none" only when a database with advisories has answered."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.house.locks import advisories
from tests.house.locks.advisories import KNOWN_BAD, Locked

GRPCIO = next(package for package in advisories.locked_packages() if package.name == "grpcio")
RING = next(package for package in advisories.locked_packages() if package.name == "ring")


class Database(ThreadingHTTPServer):
    """A database with the interface of osv.dev."""

    known: frozenset[Locked] = frozenset()


class Answer(BaseHTTPRequestHandler):
    """Answers the one request that advisories.py makes."""

    server: Database

    def do_POST(self) -> None:
        """Answer with one advisory for each known package."""
        queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        asked = [
            Locked(q["package"]["ecosystem"], q["package"]["name"], q["version"]) for q in queries
        ]
        results = [
            {"vulns": [{"id": "A-1"}]} if item in self.server.known else {} for item in asked
        ]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"results": results}).encode())

    def log_message(self, *_: object) -> None:
        """Keep the test's output free of requests."""


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A running database that knows nothing yet."""
    with Database(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("OSV_URL", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()
        thread.join()


def test_database_that_knows_nothing_is_no_database(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mirror without advisories says "none" of every package."""
    assert advisories.main() == 2
    assert "NOTHING WAS CHECKED" in capsys.readouterr().out


def test_no_answer_is_no_database(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing listens on the port."""
    monkeypatch.setenv("OSV_URL", "http://127.0.0.1:9")
    assert advisories.main() == 2
    assert "NOTHING WAS CHECKED" in capsys.readouterr().out


def test_advisories_of_packages_and_crates_are_named(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of Python and one of Rust."""
    database.known = frozenset({KNOWN_BAD})
    assert advisories.main() == 0
    assert "0 with advisories" in capsys.readouterr().out
    database.known = frozenset({KNOWN_BAD, GRPCIO, RING})
    assert advisories.main() == 1
    shown = capsys.readouterr().out
    assert f"grpcio {GRPCIO.version}: A-1" in shown
    assert f"ring {RING.version}: A-1" in shown
