"""The share of keys that is kept: by policy and yesterday's rows, nested, fixed for a day."""

import asyncio
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from monitoring.api import component as component_module
from monitoring.api import reader_policies
from monitoring.api.component import BLOCK_DAYS, MonitoringComponent
from monitoring.api.decision_policy import DecisionPolicy, decisions_option
from monitoring.api.reader_policies import ReaderPolicies, share_of_keys
from monitoring.cells.decision_rows import SAMPLE_ALL, join_batches, sample_decisions
from protos import monitoring_pb2 as pb
from registry.watching.policy import MonitoringPolicy, Segmentation
from tests.monitoring.served import AT_NS, HOUR_NS, served_batch

DAY = AT_NS // (24 * HOUR_NS)


@pytest.mark.parametrize(
    ("keys", "rows", "share"),
    [
        (0, 10**12, SAMPLE_ALL),
        (200_000, 0, SAMPLE_ALL),
        (200_000, 200_000, SAMPLE_ALL),
        (200_000, 400_000, SAMPLE_ALL // 2),
        (200_000, 10_000_000, 1_310),
        (1, 10**9, 1),
    ],
)
def test_share_keeps_about_the_keys_of_the_policy(keys: int, rows: int, share: int) -> None:
    """Never more than all, and never none of what a policy asks for."""
    assert share_of_keys(keys, rows) == share


def test_shares_are_fixed_for_a_day_and_follow_the_policy() -> None:
    """Late windows of yesterday change nothing today; an applied policy does."""
    shares = ReaderPolicies()
    assert shares.current.sampled_of_65536 == 0
    policies = {"churn": MonitoringPolicy(decisions=1_000), "all": MonitoringPolicy(decisions=0)}
    shares.apply(policies, 7, {"churn": 2_000, "all": 10**9, "nba": 400_000}, {})
    assert shares.current.by_model == {
        "all": SAMPLE_ALL,
        "churn": SAMPLE_ALL // 2,
        "nba": SAMPLE_ALL // 2,
    }
    # A model that was never seen keeps all, such as that of a demo.
    assert shares.current.sampled_of_65536 == SAMPLE_ALL
    shares.apply(policies, 7, {"churn": 9_999}, {"churn": 10**6})
    assert shares.current.by_model["churn"] == SAMPLE_ALL // 2
    shares.apply({"churn": MonitoringPolicy(decisions=500)}, 7, {}, {})
    assert shares.current.by_model["churn"] == SAMPLE_ALL // 4
    assert shares.keys_a_day["churn"] == 500
    shares.apply(policies, 8, {"churn": 4_000}, {})
    assert shares.current.by_model["churn"] == SAMPLE_ALL // 4


def test_new_model_with_much_traffic_is_bounded_on_its_first_day() -> None:
    """It has no rows of yesterday, so those of today count."""
    shares = ReaderPolicies()
    shares.apply({}, 7, {}, {"new": 150_000})
    assert shares.current.by_model["new"] == SAMPLE_ALL
    shares.apply({}, 7, {}, {"new": 2_000_000})
    assert shares.current.by_model["new"] == SAMPLE_ALL // 10


def test_smaller_share_is_a_part_of_a_larger_one() -> None:
    """Two days, or two models with the same keys, share the keys of the smaller sample."""
    batch = served_batch(np.random.default_rng(3), 300, rows_max=1)
    kept = []
    for share in (SAMPLE_ALL // 3, SAMPLE_ALL // 9):
        (block,) = sample_decisions(batch, np.zeros(300, dtype=np.bool_), share)
        kept.append(block.rows)
    keys = np.frombuffer(batch.key_hash, "<u8") % np.uint64(SAMPLE_ALL)
    assert kept == [np.count_nonzero(keys < SAMPLE_ALL // part) for part in (3, 9)]
    assert 0 < kept[1] < kept[0] < 300


@pytest.mark.parametrize("override", [0, 7, SAMPLE_ALL])
def test_option_overrides_the_policies(override: int) -> None:
    """For a whole system, also before the registry answers."""
    shares = ReaderPolicies(override)
    assert shares.current.sampled_of_65536 == override
    tenure = {"new": (0.0, 12.0)}
    policy = MonitoringPolicy(
        decisions=9, segments={"tenure": Segmentation(feature="months", ranges=tenure)}
    )
    shares.apply({"churn": policy, "nba": MonitoringPolicy()}, 7, {"churn": 10**6}, {})
    assert shares.current == DecisionPolicy(override)
    # Segments are no decisions.
    assert [item.model for item in shares.segments] == ["churn"]
    assert asyncio.run(shares.wait())


def test_reader_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting goes on without the registry; no decision is kept that a policy may forbid."""
    monkeypatch.setattr(reader_policies, "READY_S", 0.01)
    shares = ReaderPolicies()
    assert [asyncio.run(shares.wait()) for _ in range(2)] == [False, False]
    assert shares.current.sampled_of_65536 == 0
    shares.apply({}, 7, {}, {})
    assert asyncio.run(shares.wait())


def test_option_outside_of_its_bounds_is_refused() -> None:
    """The words are those of the policy."""
    assert decisions_option("5") == 5
    with pytest.raises(Exception, match="give 0 to 65536"):
        decisions_option("65537")


def test_without_duckdb_blocks_stay_three_days(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They feed the looks of a day. No file is written, and the log says why."""
    monkeypatch.setattr(component_module, "find_spec", lambda _name: None)
    component = MonitoringComponent(tmp_path, "", "127.0.0.1:1")
    assert "DuckDB is not installed" in caplog.text
    now = time.time_ns() // (24 * HOUR_NS) * (24 * HOUR_NS)
    batches = [
        served_batch(np.random.default_rng(1), 2, first=2 * age, at_ns=now - age * 24 * HOUR_NS)
        for age in range(BLOCK_DAYS + 2)
    ]
    blocks = [
        block
        for joined in join_batches(batches)
        for block in sample_decisions(joined, np.zeros(len(joined.role), bool), SAMPLE_ALL)
    ]
    name = pb.JournalName(gateway="gateway-1")
    component.store.push(pb.CellBatch(journal=name, sequence=1, decisions=blocks))
    component._compact()
    kept = [
        bool(component.decisions.find_decisions(batch.prediction_ids[:64])) for batch in batches
    ]
    assert kept == [True] * (BLOCK_DAYS + 1) + [False]
    assert list(tmp_path.rglob("*.parquet")) == []
    component.store.close()


def test_work_is_repeated_while_it_did_something_and_has_time(tmp_path: Path) -> None:
    """Other work comes in between, and its time does not count."""
    component = MonitoringComponent(tmp_path, "", "127.0.0.1:1")
    taken: list[str] = []

    def page(left: list[int]) -> int:
        taken.append("page")
        return left.pop()

    async def course() -> None:
        # Until there is nothing to do.
        await component._repeat(lambda: page([0]), 60.0)
        left = [0, 5, 5]
        await component._repeat(lambda: page(left), 60.0)
        assert (taken, left) == (["page"] * 4, [])
        # Until the time is over: a page that began is finished, and no other begins.
        del taken[:]
        await component._repeat(lambda: page([5]), 0.0)
        assert taken == ["page"]
        # A push that comes while the first page runs is served before the second one.
        del taken[:]
        begun, pushed = threading.Event(), threading.Event()
        left = [0, 5]

        def first_page_waits() -> int:
            begun.set()
            pushed.wait(20)
            return page(left)

        pages = asyncio.ensure_future(component._repeat(first_page_waits, 60.0))
        await asyncio.to_thread(begun.wait, 20)
        push = asyncio.ensure_future(component._in_thread(lambda: taken.append("push")))
        await asyncio.sleep(0)
        pushed.set()
        await asyncio.gather(pages, push)
        assert taken == ["page", "push", "page"]

    asyncio.run(course())
    component.store.close()


@pytest.mark.parametrize("error", [None, OSError("the disk is full")])
def test_repeated_work_begins_each_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError | None
) -> None:
    """The time that it takes is part of its minute; other work has the whole minute after it."""
    # A clock that pauses and pages move.
    component = MonitoringComponent(tmp_path, "", "127.0.0.1:1")
    begun_s: list[float] = []
    now_s = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds
        if now_s > 200.0:
            raise asyncio.CancelledError

    def page() -> int:
        nonlocal now_s
        begun_s.append(now_s)
        now_s += 4.0
        if error:
            raise error
        return 1

    def beginnings(repeated_s: float) -> list[float]:
        nonlocal now_s
        now_s = 0.0
        del begun_s[:]
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(component._every(60.0, page, repeated_s))
        return begun_s[:]

    # Pages until 15 s are over, or until one fails; then the same work without repetition.
    loop = SimpleNamespace(sleep=sleep, get_running_loop=asyncio.get_running_loop)
    monkeypatch.setattr(component_module, "asyncio", loop)
    monkeypatch.setattr(component_module, "time", SimpleNamespace(monotonic=lambda: now_s))
    pages_s = [0.0] if error else [0.0, 4.0, 8.0, 12.0]
    assert beginnings(15.0) == [minute + page_s for minute in (60, 120, 180) for page_s in pages_s]
    assert beginnings(0.0) == [60.0, 124.0, 188.0]
    component.store.close()
