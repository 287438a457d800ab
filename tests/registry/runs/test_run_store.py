"""Tests of training runs in the store: keys, attempts, ends, logs, and what an audit finds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protos import registry_pb2 as pb
from registry.runs.run_logs import FULL, LOG_BYTES_MAX, LOGS_MAX, RunLogs
from registry.runs.run_store import RUN_SILENT_MS, RunStore
from registry.storage.store import RegistryStore
from registry.types import BadRequestError, FencedError, NotFoundError
from tests.registry.storage.test_store import execute_sql, register_version

pytestmark = pytest.mark.walk

INPUTS = b'{"commit":"4f2a"}'


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.ms = 1_790_000_000_000

    def now_ns(self) -> int:
        """Unix nanoseconds."""
        return self.ms * 1_000_000

    def now_ms(self) -> int:
        """Unix milliseconds."""
        return self.ms


@pytest.fixture
def clock() -> Clock:
    """The store's clock."""
    return Clock()


@pytest.fixture
def registry(tmp_path: Path, clock: Clock) -> Iterator[RegistryStore]:
    """An empty registry."""
    opened = RegistryStore(tmp_path / "registry", clock.now_ns)
    yield opened
    opened.close()


@pytest.fixture
def store(registry: RegistryStore) -> RunStore:
    """The registry's runs."""
    return RunStore(registry)


def begin(store: RunStore, key: str = "", model: str = "churn") -> pb.BeginRunReply:
    """Begin a run as ann."""
    request = pb.BeginRunRequest(
        model=model, setting="small", key=key, cause="by hand", inputs_json=INPUTS
    )
    return store.begin_run("ann", request)


def end(
    store: RunStore, run: pb.Run, state: pb.Run.State = pb.Run.FAILED, error: str = "no rows"
) -> pb.Run:
    """End a run as ann."""
    request = pb.EndRunRequest(
        id=run.id, attempt=run.attempt, state=state, error=error, result_json=b'{"seconds":{}}'
    )
    return store.end_run("ann", request)


def test_run_is_kept_with_its_inputs_and_its_end(
    registry: RegistryStore, store: RunStore, clock: Clock
) -> None:
    """A run that fails is kept as one that makes a version is, and each has two entries."""
    failed = begin(store).run
    clock.ms += 4_000
    end(store, failed)
    version = register_version(registry)
    good = begin(store).run
    request = pb.EndRunRequest(
        id=good.id, attempt=1, state=pb.Run.REGISTERED, version=version.label, result_json=b"{}"
    )
    store.end_run("ann", request)

    read = store.get_run(failed.id[:8])
    assert (read.state, read.error, read.actor) == (pb.Run.FAILED, "no rows", "ann")
    assert read.ended_unix_ms - read.begun_unix_ms == 4_000
    assert (read.inputs_json, read.result_json) == (INPUTS, b'{"seconds":{}}')
    assert store.get_run(good.id).version_digest == version.digest
    listed = store.list_runs(pb.ListRunsRequest(model="churn")).runs
    assert [run.id for run in listed] == [good.id, failed.id]
    assert {run.inputs_json for run in listed} == {b""}
    entries = registry.history(after=0, limit=0, object_prefix="model/churn/run/").entries
    assert [entry.action for entry in entries] == ["begin run", "end run"] * 2
    registry.prove_again()
    assert not registry.stopped_reason


def test_same_key_begins_no_second_run(
    registry: RegistryStore, store: RunStore, clock: Clock
) -> None:
    """A run that is under way or has ended is returned. Another model may have the same key."""
    first = begin(store, "nightly-1")
    assert first.begun
    assert begin(store, "nightly-1") == pb.BeginRunReply(run=first.run, begun=False)
    clock.ms += RUN_SILENT_MS * 10
    store.append_log("ann", pb.RunLogPart(id=first.run.id, attempt=1))
    end(store, first.run)
    clock.ms += RUN_SILENT_MS * 10
    again = begin(store, "nightly-1")
    assert (again.begun, again.run.state) == (False, pb.Run.FAILED)
    assert begin(store, "nightly-1", "offer").begun


def test_silent_run_is_begun_again_and_its_first_trainer_is_fenced(
    registry: RegistryStore, store: RunStore, clock: Clock
) -> None:
    """A trainer that was killed loses its run; one that was only slow must stop."""
    first = begin(store, "nightly-1").run
    store.append_log("ann", pb.RunLogPart(id=first.id, attempt=1, text=b"rows\n"))
    assert not store.get_run(first.id).silent
    clock.ms += RUN_SILENT_MS + 1
    assert store.get_run(first.id).silent
    second = begin(store, "nightly-1")
    assert (second.begun, second.run.id, second.run.attempt) == (True, first.id, 2)
    with pytest.raises(FencedError, match=r"is attempt 2 by 'ann', and attempt 1 by 'ann' wants"):
        store.append_log("ann", pb.RunLogPart(id=first.id, attempt=1, text=b"fit\n"))
    with pytest.raises(FencedError, match="another one has taken the run over"):
        end(store, first)
    with pytest.raises(FencedError, match="by 'eve'"):
        store.append_log("eve", pb.RunLogPart(id=first.id, attempt=2))
    assert end(store, second.run).state == pb.Run.FAILED
    registry.prove_again()
    assert not registry.stopped_reason


def test_run_ends_once(store: RunStore) -> None:
    """A trainer that lost the reply may send the same end again."""
    run = begin(store).run
    ended = end(store, run)
    assert end(store, run) == ended
    with pytest.raises(FencedError, match="has ended before, otherwise"):
        end(store, run, error="another reason")
    with pytest.raises(FencedError, match="its log is closed"):
        store.append_log("ann", pb.RunLogPart(id=run.id, attempt=1, text=b"x"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "No Name"}, "must match"),
        ({"cause": ""}, "a cause must be named"),
        ({"inputs_json": b"[1]"}, "is no JSON object"),
        ({"inputs_json": b"{'a'}"}, "is not JSON"),
        ({"inputs_json": b'{"a": NaN}'}, "NaN is not JSON"),
    ],
)
def test_bad_beginning_is_refused(store: RunStore, change: dict[str, Any], words: str) -> None:
    """Each with its sentence, and nothing is written."""
    fields: dict[str, Any] = {"model": "churn", "cause": "by hand", "inputs_json": INPUTS, **change}
    with pytest.raises(BadRequestError, match=words):
        store.begin_run("ann", pb.BeginRunRequest(**fields))
    assert not store.list_runs(pb.ListRunsRequest()).runs


def test_bad_end_is_refused(store: RunStore) -> None:
    """A state that is no end, a version that is not there, an unknown run."""
    run = begin(store).run
    with pytest.raises(BadRequestError, match="REGISTERED, WRITTEN"):
        end(store, run, pb.Run.RUNNING)
    request = pb.EndRunRequest(
        id=run.id, attempt=1, state=pb.Run.REGISTERED, version="9", result_json=b"{}"
    )
    with pytest.raises(NotFoundError):
        store.end_run("ann", request)
    for unknown in ("", "ab", "ab" * 16, "%" * 8):
        with pytest.raises(NotFoundError, match="turnout runs list"):
            store.get_run(unknown)
    assert store.get_run(run.id).state == pb.Run.RUNNING


def test_edited_run_is_found(tmp_path: Path, clock: Clock) -> None:
    """A gate that failed cannot be edited into one that passed."""
    folder = tmp_path / "registry"
    registry = RegistryStore(folder, clock.now_ns)
    store = RunStore(registry)
    end(store, begin(store).run, pb.Run.GATE_FAILED, "AUC 0.51")
    registry.close()
    execute_sql(folder, 'UPDATE runs SET result_json = \'{"seconds":{"fit":1}}\'')
    opened = RegistryStore(folder, clock.now_ns)
    assert "table runs" in opened.stopped_reason
    assert "field result_sha256" in opened.stopped_reason
    opened.close()


def test_log_has_a_bound_and_old_logs_go(tmp_path: Path, clock: Clock) -> None:
    """A trainer that prints 1 GB leaves 1 MiB, and its signs of life still count."""
    logs = RunLogs(tmp_path / "runs", clock.now_ms)
    logs.begin("a" * 32)
    for _ in range(20):
        logs.append("a" * 32, b"x" * 65_536)
    assert logs.size("a" * 32) == LOG_BYTES_MAX
    assert logs.read("a" * 32, LOG_BYTES_MAX - len(FULL), 1_000) == FULL
    clock.ms += 5
    logs.append("a" * 32, b"more")
    assert (logs.size("a" * 32), logs.heard_ms("a" * 32)) == (LOG_BYTES_MAX, clock.ms)
    for number in range(LOGS_MAX):
        clock.ms += 1
        logs.append(f"{number:032x}", b"x")
    logs.begin("b" * 32)
    assert logs.size("a" * 32) == 0
    assert len(list((tmp_path / "runs").iterdir())) == LOGS_MAX
