"""The demo's own parts: its checklist, its pages, its count of calls, its folder."""

import asyncio
import io
from pathlib import Path

import pytest
from rich.console import Console

from protos import rollout_pb2
from tests.turnout.test_system_file import own_addresses
from turnout.demo.checklist import Checklist, Step, StepFailedError, require
from turnout.demo.screen import LiveScreen, LogScreen
from turnout.demo.story import MARKER, new_checklist, prepare_folder
from turnout.demo.summary import times_json
from turnout.demo.traffic import CallCounts
from turnout.errors import OperatorError
from turnout.processes.system_file import write_system_file
from turnout_client import PredictError


def test_a_step_holds_only_if_its_body_does() -> None:
    """One that raises has failed, and the checklist does not hold."""
    steps = Checklist([Step("one"), Step("two")])
    with steps.timed("one"):
        pass
    with pytest.raises(StepFailedError, match="3 calls failed"), steps.timed("two"):
        require(False, "3 calls failed")
    assert [step.state for step in steps.steps] == ["held", "failed"]
    assert not steps.passed


def test_unplayed_steps_do_not_hold() -> None:
    """A demo that stopped early cannot leave with 0."""
    steps = new_checklist()
    with steps.timed("System up"):
        pass
    assert not steps.passed


def test_calls_are_counted_exactly() -> None:
    """Totals add up; the final line covers everything, the others the last two seconds."""
    tally = CallCounts(began=0.0)
    for _ in range(99):
        tally.sent += 1
        tally.count_answered("1", "production", 1_000_000)
    tally.sent += 1
    tally.failed["UNAVAILABLE"] += 1
    live = tally.summary_line(1.0, final=False)
    for _ in range(20):
        later = tally.summary_line(5.0, final=False)
    final = tally.summary_line(10.0, final=True)

    assert (live["answered"], live["failed"], live["rate"]) == (99, 1, 99.0)
    assert (later["rate"], later["p50_ms"]) == (0.0, None)
    assert (final["rate"], final["sent"], final["codes"]) == (9.9, 100, {"UNAVAILABLE": 1})
    assert final["p50_ms"] == pytest.approx(1.0, rel=0.02)


def page(screen: LiveScreen) -> str:
    """Return the live page as text."""
    console = Console(file=io.StringIO(), width=140)
    console.print(screen.page())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_page_shows_steps_customers_and_rollout() -> None:
    """What a newcomer sees at one glance."""
    steps = new_checklist()
    screen = LiveScreen(Console(file=io.StringIO()), steps, lambda: 0.0)
    assert "calls" not in page(screen)
    steps.step("Features").note = "cloning"
    steps.step("Features").state = "running"
    tally = CallCounts(began=0.0)
    tally.count_answered("1", "production", 2_000_000)
    tally.count_answered("1", "fallback", 2_000_000)
    screen.customers(tally.summary_line(1.0, final=False))
    screen.rollout(rollout_pb2.RolloutStatus(version="2", stage=rollout_pb2.SHADOW_STAGE))
    screen.add_line("dana may not approve her own")

    shown = page(screen)
    wanted = ("cloning", "0 failed", "1 saved by production", "shadow", "dana may not")
    for words in wanted:
        assert words in shown


def test_a_log_has_a_line_a_turn() -> None:
    """Without a terminal: plain lines, a verdict only when it changes."""
    console = Console(file=io.StringIO(), width=200)
    screen = LogScreen(console, lambda: 0.0)
    status = rollout_pb2.RolloutStatus(version="2", verdict=rollout_pb2.FAULTY, reason="5 of 41")
    for _ in range(3):
        screen.rollout(status)
    screen.step_changed(Step("Features", state="held", note="whole", took_s=2.0))

    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 2
    assert "FAULTY, 5 of 41" in lines[0]
    assert "Features: held in 2.0 s. whole" in lines[1]


def test_the_four_times_are_counted_from_the_first_bad_answer() -> None:
    """And the one that is promised is from verdict to moved."""
    times = rollout_pb2.RollbackTimes(
        first_bad_unix_ns=10**18, verdict_unix_ns=10**18 + 3 * 10**9,
        moved_unix_ns=10**18 + 3_020_000_000, last_bad_unix_ns=10**18 + 2_900_000_000,
    )  # fmt: skip
    value = times_json(times)
    assert (value["verdict_ms"], value["moved_ms"], value["last_bad_ms"]) == (3000, 3020, 2900)
    assert value["evidence_to_moved_ms"] == 20


def test_only_a_folder_that_a_demo_made_is_wiped(tmp_path: Path) -> None:
    """Somebody's files stay; a demo's are replaced; a running demo's are left alone."""
    (tmp_path / "mine.txt").write_text("years of work")
    with pytest.raises(OperatorError, match="not empty"):
        prepare_folder(tmp_path)
    assert (tmp_path / "mine.txt").exists()

    folder = tmp_path / "demo"
    prepare_folder(folder)
    (folder / "left.txt").write_text("of an earlier demo")
    prepare_folder(folder)
    assert [path.name for path in folder.iterdir()] == [MARKER]

    write_system_file(folder, own_addresses())
    with pytest.raises(OperatorError, match="runs in"):
        prepare_folder(folder)


def test_a_call_that_fails_is_counted_by_its_code() -> None:
    """Customers who got no score, by why."""
    import grpc

    from turnout.demo.traffic import TrafficGenerator

    class Refusing:
        """A client whose gateway is full."""

        async def predict(self, *_args: object, **_named: object) -> None:
            raise PredictError(grpc.StatusCode.UNAVAILABLE, "full")

    async def one() -> CallCounts:
        traffic = TrafficGenerator(Refusing(), "churn", 10, 1.0, seed=1)  # type: ignore[arg-type]
        sending = asyncio.create_task(traffic.send(1_000.0))
        async with asyncio.timeout(0.1):
            await asyncio.sleep(0.03)
        sending.cancel()
        await traffic.finish()
        return traffic.counts

    tally = asyncio.run(one())
    assert tally.failed["UNAVAILABLE"] == tally.sent
    assert tally.answered == 0
