"""Tests of queued runs in the store: asked for once, begun once, returned, ended, cancelled."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from features.canonical import canonical_json
from protos import registry_pb2 as pb
from registry.runs.run_store import RUN_SILENT_MS, RunStore
from registry.schedules.schedule import TRAINING_FAILED
from registry.storage.store import RegistryStore
from registry.types import BadRequestError, FencedError, GateError, NotFoundError
from tests.registry.project_definitions import PLAN
from tests.registry.runs.test_run_store import Clock, begin, end

pytestmark = pytest.mark.walk

DAILY = {"model": "churn", "setting": "small", "cron": "0 4 * * *"}
DAY_MS = 86_400_000
SECTIONS = ("views", "labels", "recipes", "models", "policies")


@pytest.fixture
def clock() -> Clock:
    """The store's clock."""
    return Clock()


@pytest.fixture
def registry(tmp_path: Path, clock: Clock) -> Iterator[RegistryStore]:
    """An empty registry, whose history proves its rows when the test has ended."""
    opened = RegistryStore(tmp_path / "registry", clock.now_ns)
    yield opened
    opened.prove_again()
    assert not opened.stopped_reason
    opened.close()


@pytest.fixture
def store(registry: RegistryStore) -> RunStore:
    """The registry's runs."""
    return RunStore(registry)


def apply_schedules(
    registry: RegistryStore, schedules: Mapping[str, Any], revision: int = 0
) -> None:
    """Apply a project of these schedules as the next revision after *revision*."""
    sections: dict[str, Any] = {name: {} for name in SECTIONS}
    value = {"format": 1, "name": "shop", **sections, "schedules": schedules}
    request = pb.ApplyProjectRequest(
        name="shop",
        expected_revision=revision,
        definitions=canonical_json(value),
        plan_digest=PLAN,
        reason="schedules",
    )
    registry.apply_project("ann", request, (), operator=False)


def ask(store: RunStore, key: str = "", due_ms: int = 0, schedule: str = "") -> pb.BeginRunReply:
    """Ask for a run of churn/small."""
    request = pb.QueueRunRequest(
        model="churn",
        setting="small",
        key=key,
        cause="schedule daily",
        schedule=schedule,
        due_unix_ms=due_ms,
    )
    return store.queue_run("ann", request)


def findings(registry: RegistryStore) -> list[str]:
    """Return the kinds and texts of all findings."""
    return [f"{finding.kind}: {finding.text}" for finding in registry.findings_after(0)]


def test_key_is_queued_once_and_begun_once(store: RunStore, clock: Clock) -> None:
    """The trainer that begins it has the run; its cause stays that of the asker."""
    queued = ask(store, "daily@1")
    assert (queued.begun, queued.run.state, queued.run.attempt) == (True, pb.Run.QUEUED, 0)
    assert ask(store, "daily@1") == pb.BeginRunReply(run=queued.run, begun=False)
    clock.ms += RUN_SILENT_MS * 10
    assert not store.get_run(queued.run.id).silent
    begun = begin(store, "daily@1")
    assert (begun.begun, begun.run.id, begun.run.attempt) == (True, queued.run.id, 1)
    assert (begun.run.cause, begun.run.taken_unix_ms) == ("schedule daily", clock.ms)
    assert not begin(store, "daily@1").begun
    assert end(store, begun.run, pb.Run.GATE_FAILED).state == pb.Run.GATE_FAILED
    assert not begin(store, "daily@1").begun
    assert not ask(store, "daily@1").begun
    listed = store.list_runs(pb.ListRunsRequest(open=True)).runs
    assert not listed


def test_schedule_is_bounded_where_its_run_is_written(
    registry: RegistryStore, store: RunStore, clock: Clock
) -> None:
    """A skipped run is kept with its reason, once for its key."""
    apply_schedules(registry, {"daily": {**DAILY, "cool_down": "1d"}})
    first = ask(store, "d@1", clock.ms, "shop/daily").run
    assert first.state == pb.Run.QUEUED
    waiting = ask(store, "d@2", clock.ms + DAY_MS, "shop/daily").run
    assert (waiting.state, waiting.error[:12]) == (pb.Run.SKIPPED, f"run {first.id[:8]}")
    end(store, begin(store, "d@1").run, pb.Run.CHAMPION_KEPT)
    clock.ms += DAY_MS // 2
    early = ask(store, "d@3", clock.ms, "shop/daily").run
    assert (early.state, early.error) == (
        pb.Run.SKIPPED,
        "the cool-down is 1d, and the last run was 720 min before",
    )
    assert not ask(store, "d@3", clock.ms, "shop/daily").begun
    assert not begin(store, "d@3").begun
    clock.ms += DAY_MS // 2
    assert ask(store, "d@4", clock.ms, "shop/daily").run.state == pb.Run.QUEUED
    (listed,) = store.list_schedules(with_runs=True).schedules
    assert (listed.project, listed.name) == ("shop", "daily")
    assert (listed.last_run.key, listed.last_skipped.key) == ("d@4", "d@3")
    with pytest.raises(NotFoundError, match="no schedule 'shop/weekly'; turnout schedules list"):
        ask(store, "w@1", clock.ms, "shop/weekly")


def test_schedule_counts_from_when_it_was_applied_as_it_is(
    registry: RegistryStore, store: RunStore, clock: Clock
) -> None:
    """An apply that leaves a schedule alone must not make it forget a due time."""
    first_ms = clock.ms
    apply_schedules(registry, {"daily": DAILY})
    clock.ms += 1_000
    apply_schedules(registry, {"daily": DAILY, "other": {**DAILY, "cron": "0 5 * * *"}}, 1)
    since = {
        item.name: item.since_unix_ms for item in store.list_schedules(with_runs=False).schedules
    }
    assert since == {"daily": first_ms, "other": first_ms + 1_000}
    clock.ms += 1_000
    apply_schedules(registry, {"daily": {**DAILY, "cron": "0 6 * * *"}}, 2)
    (changed,) = store.list_schedules(with_runs=False).schedules
    assert changed.since_unix_ms == clock.ms
    clock.ms += 1_000
    apply_schedules(registry, {}, 3)
    assert not store.list_schedules(with_runs=False).schedules


def test_schedule_that_cannot_be_read_is_not_applied(registry: RegistryStore) -> None:
    """An old command may not have checked it."""
    with pytest.raises(BadRequestError, match="schedule 'daily': cron = 'often'; it has five"):
        apply_schedules(registry, {"daily": {**DAILY, "cron": "often"}})


def returned(store: RunStore, run: pb.Run, error: str) -> pb.Run:
    """End an attempt, so that another one may follow."""
    request = pb.EndRunRequest(
        id=run.id, attempt=run.attempt, state=pb.Run.QUEUED, error=error, result_json=b"{}"
    )
    return store.end_run("ann", request)


def test_third_failure_ends_the_run_with_one_finding(
    registry: RegistryStore, store: RunStore
) -> None:
    """An interrupted attempt is no failure. Whoever lost a reply may send it again."""
    ask(store, "d@1")
    interrupted = begin(store, "d@1").run
    assert returned(store, interrupted, "").failures == 0
    for failures in (1, 2):
        run = begin(store, "d@1").run
        waits = returned(store, run, "it was killed")
        assert (waits.state, waits.failures) == (pb.Run.QUEUED, failures)
        assert returned(store, run, "it was killed") == waits
        with pytest.raises(FencedError):
            store.append_log("ann", pb.RunLogPart(id=run.id, attempt=run.attempt, text=b"x"))
    assert findings(registry) == []
    last = begin(store, "d@1").run
    ended = returned(store, last, "it was killed")
    assert (ended.state, ended.error) == (
        pb.Run.FAILED,
        "attempt 4 failed, and no other follows: it was killed",
    )
    assert findings(registry) == [
        f"{TRAINING_FAILED}: run {last.id[:8]} (schedule daily) made no version: {ended.error}"
    ]
    with pytest.raises(FencedError):
        returned(store, last, "it was killed")
    assert not begin(store, "d@1").begun


def test_trainers_that_fall_silent_end_the_run_too(
    registry: RegistryStore, store: RunStore, clock: Clock
) -> None:
    """A run that kills its runner must not do so for ever."""
    ask(store, "d@1")
    for attempt in (1, 2, 3):
        begun = begin(store, "d@1")
        assert (begun.begun, begun.run.attempt, begun.run.failures) == (True, attempt, attempt - 1)
        clock.ms += RUN_SILENT_MS + 1
    ended = begin(store, "d@1")
    assert (ended.begun, ended.run.state, ended.run.failures) == (False, pb.Run.FAILED, 3)
    assert "gave no sign of life" in ended.run.error
    assert len(findings(registry)) == 1


def test_failed_end_of_a_queued_run_is_a_finding(registry: RegistryStore, store: RunStore) -> None:
    """A queued run fails unseen. A run by hand writes no finding: its author sees it fail."""
    end(store, begin(store).run)
    assert findings(registry) == []
    ask(store, "d@1")
    run = begin(store, "d@1").run
    assert end(store, run) == end(store, run)
    assert findings(registry) == [
        f"{TRAINING_FAILED}: run {run.id[:8]} (schedule daily) made no version: no rows"
    ]
    with pytest.raises(BadRequestError, match="was never queued"):
        returned(store, begin(store).run, "it was killed")


def test_cancelled_run_is_never_begun_and_fences_its_trainer(store: RunStore) -> None:
    """A run that waits, and one that is trained now."""
    waiting = ask(store, "d@1").run
    request = pb.CancelRunRequest(id=waiting.id, reason="wrong data")
    cancelled = store.cancel_run("cleo", request)
    assert (cancelled.state, cancelled.error) == (
        pb.Run.CANCELLED,
        "cancelled by cleo: wrong data",
    )
    assert not begin(store, "d@1").begun
    with pytest.raises(GateError, match=r"has ended \(cancelled\)"):
        store.cancel_run("cleo", request)
    ask(store, "d@2")
    run = begin(store, "d@2").run
    store.cancel_run("cleo", pb.CancelRunRequest(id=run.id))
    with pytest.raises(FencedError, match="its log is closed"):
        store.append_log("ann", pb.RunLogPart(id=run.id, attempt=1))
    with pytest.raises(FencedError, match="has ended before, otherwise"):
        end(store, run)


def test_controller_without_the_lease_asks_in_vain(store: RunStore) -> None:
    """Its token is checked in the transaction that would write the run."""
    request = pb.QueueRunRequest(model="churn", setting="small", cause="c", key="k", lease_token=7)
    with pytest.raises(FencedError, match="lease 'rollout' is free"):
        store.queue_run("rollout", request)
    assert not store.list_runs(pb.ListRunsRequest()).runs
