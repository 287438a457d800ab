"""An error of redis, DuckDB or the operating system is one sentence with the way out.

Each is provoked at the real thing.
"""

import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import duckdb
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from features.online.store_server import StoreServer
from host.processes import open_descriptors
from tests.servers import redis_server
from turnout.__main__ import main
from turnout.cli.exit_codes import exit_message
from turnout.errors import ExitCode
from turnout.library_errors import WAYS_OUT
from turnout.processes.port_checks import free_tcp_port

NO_RETRY = Retry(NoBackoff(), 0)


@pytest.fixture(scope="module")
def store() -> Iterator[StoreServer]:
    """A store that each test makes refuse something, and puts right again."""
    with redis_server() as server:
        yield server


def sentence_of(act: Callable[[], object]) -> tuple[str, ExitCode]:
    """Return what a person reads of the error that *act* raises: one line."""
    with pytest.raises(Exception) as raised:  # noqa: PT011  each library has its own
        act()
    message = exit_message(raised.value)
    assert message is not None, repr(raised.value)
    assert "\n" not in message.text
    assert "Traceback" not in message.text
    return message.text, message.exit_code


def test_error_of_the_store_says_what_to_do(store: StoreServer) -> None:
    """Login, rights, memory, a replica, and nobody at the address."""
    port = int(store.url.rpartition(":")[2].partition("/")[0])
    with redis.Redis.from_url(store.url) as client:
        # A login and a command that the store refuses.
        wrong = redis.Redis(port=port, username="nobody", password="wrong", retry=NO_RETRY)
        assert "correct user and password" in sentence_of(wrong.ping)[0]
        client.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "+get", "~*")
        reader = redis.Redis(port=port, username="reader", password="pw")
        text, code = sentence_of(lambda: reader.set("a", "b"))
        assert "ACL SETUSER" in text
        assert code is ExitCode.FAILED
        # Rows that it cannot take.
        client.config_set("maxmemory", "1")
        assert "raise its maxmemory" in sentence_of(lambda: client.set("a", "b"))[0]
        client.config_set("maxmemory", "0")
        client.replicaof("127.0.0.1", str(free_tcp_port()))
        assert "name the master" in sentence_of(lambda: client.set("a", "b"))[0]
        client.replicaof("NO", "ONE")
    gone = redis.Redis(port=free_tcp_port(), retry=NO_RETRY)
    text, code = sentence_of(gone.ping)
    assert "repeat the command when it is back" in text
    assert code is ExitCode.NOT_REACHABLE


def test_error_of_duckdb_says_what_to_do_and_names_no_data(tmp_path: Path) -> None:
    """A damaged file, one that is gone, and too little memory."""
    damaged = tmp_path / "000001.parquet"
    damaged.write_bytes(b"PAR1" + bytes(100))
    with duckdb.connect() as database:
        text, _ = sentence_of(lambda: database.execute(f"SELECT * FROM '{damaged}'"))
        assert "ingest its rows again" in text
        assert damaged.name in text
        text, _ = sentence_of(lambda: database.execute("SELECT * FROM 'none.parquet'"))
        assert "check that the file is there" in text
        text, _ = sentence_of(lambda: database.execute("SELECT 'Mrs. Smith'::INT"))
        assert "LINE 1" not in text
        for row in ("Smith,1,2", '"Smith\nJones,1', "Smith"):
            table = tmp_path / "rows.csv"
            table.write_text(f"key,score\nC1,0.5\n{row}\n")
            strict = f"SELECT * FROM read_csv('{table}', auto_detect=false, header=true, delim=',',"
            strict += " columns={'key': 'VARCHAR', 'score': 'VARCHAR'}, quote='\"', escape='\"')"
            text, _ = sentence_of(lambda query=strict: database.execute(query).fetchall())
            assert "CSV Error on Line: 3" in text
            assert "Smith" not in text
            assert "Jones" not in text
        database.execute("SET memory_limit='1MB'; SET temp_directory=''")
        big = "SELECT count(*) FROM (SELECT DISTINCT range FROM range(10_000_000))"
        assert "more memory" in sentence_of(lambda: database.execute(big).fetchall())[0]


def _fill_the_disk() -> None:
    with open("/dev/full", "w", buffering=1) as full:  # noqa: PTH123
        full.write("text\n")


def _take_a_port_twice() -> None:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(first.getsockname())


def _open_too_much(folder: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(open_descriptors())
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened, hard))
    try:
        with ExitStack() as files:
            for number in range(opened):
                files.enter_context((folder / str(number)).open("w"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_error_of_the_operating_system_says_what_to_do(tmp_path: Path) -> None:
    """The path is named, so a person finds it."""
    provoked = {
        errno.ENOENT: lambda: (tmp_path / "none").read_bytes(),
        errno.EISDIR: tmp_path.read_bytes,
        errno.ENOTDIR: lambda: Path("/dev/null/state").mkdir(),
        errno.ENOSPC: _fill_the_disk,
        errno.ENAMETOOLONG: lambda: (tmp_path / ("a" * 300)).write_bytes(b""),
        errno.EADDRINUSE: _take_a_port_twice,
        errno.ECONNREFUSED: lambda: socket.create_connection(("127.0.0.1", free_tcp_port())),
        errno.EMFILE: lambda: _open_too_much(tmp_path),
    }
    for number, act in provoked.items():
        text, code = sentence_of(act)
        assert text.endswith(WAYS_OUT[number]), text
        assert code is ExitCode.FAILED
    assert "/dev/null/state" in sentence_of(provoked[errno.ENOTDIR])[0]


def test_error_that_may_be_a_bug_keeps_its_traceback() -> None:
    """A descriptor that is closed twice is no fault of the surroundings."""
    with pytest.raises(OSError, match="Bad file descriptor") as raised:
        os.close(1_000_000)
    assert exit_message(raised.value) is None


def test_command_prints_the_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """A state folder below a file."""
    with pytest.raises(SystemExit) as ended:
        main(["up", "--folder", "/dev/null/state"])
    assert ended.value.code == ExitCode.FAILED
    printed = capsys.readouterr().err
    assert "check the path: a part of it is a file" in " ".join(printed.split())
    assert "Traceback" not in printed
