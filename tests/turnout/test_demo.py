"""The demo's checklist, screens, call counts and folder."""

import asyncio
import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from protos import rollout_pb2
from tests.poll import wait_until
from tests.turnout.test_system_file import own_addresses
from turnout.demo.checklist import Checklist, Step, StepFailedError, require
from turnout.demo.screen import LiveScreen, LogScreen
from turnout.demo.story import MARKER, new_checklist, prepare_folder
from turnout.demo.summary import times_json
from turnout.demo.traffic import TIMEOUT_S, CallCounts
from turnout.errors import OperatorError
from turnout.processes.system_file import write_system_file
from turnout_client import PredictError


def test_checklist_step_passes_only_if_its_body_returns() -> None:
    """A step that raises has failed, and then the checklist has not passed."""
    steps = Checklist([Step("first"), Step("second")])
    with steps.timed("first"):
        pass
    with pytest.raises(StepFailedError, match="3 calls failed"), steps.timed("second"):
        require(False, "3 calls failed")
    assert [step.state for step in steps.steps] == ["passed", "failed"]
    assert not steps.passed


def test_checklist_with_waiting_steps_has_not_passed() -> None:
    """A demo that stopped early cannot exit with 0."""
    steps = new_checklist()
    with steps.timed("System up"):
        pass
    assert not steps.passed


def test_call_counts_add_up_to_the_calls_made() -> None:
    """The final line covers all calls, the others the last two seconds."""
    counts = CallCounts(began=0.0)
    for _ in range(99):
        counts.sent += 1
        counts.count_answered("1", "production", 1_000_000)
    counts.sent += 1
    counts.failed["UNAVAILABLE"] += 1
    live = counts.summary_line(1.0, final=False)
    for _ in range(20):
        later = counts.summary_line(5.0, final=False)
    final = counts.summary_line(10.0, final=True)

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


def test_live_screen_shows_steps_customers_and_rollout() -> None:
    """A running step has its note, and a rollout its stage."""
    steps = new_checklist()
    screen = LiveScreen(Console(file=io.StringIO()), steps, lambda: 0.0)
    assert "calls" not in page(screen)
    steps.step("Features").note = "cloning"
    steps.step("Features").state = "running"
    counts = CallCounts(began=0.0)
    counts.count_answered("1", "production", 2_000_000)
    counts.count_answered("1", "fallback", 2_000_000)
    screen.customers(counts.summary_line(1.0, final=False))
    screen.rollout(rollout_pb2.RolloutStatus(version="2", stage=rollout_pb2.SHADOW_STAGE))
    screen.add_line("dana may not approve her own")

    shown = page(screen)
    texts = ("cloning", "0 failed", "1 answered by production instead", "shadow", "dana may not")
    for text in texts:
        assert text in shown


def test_log_screen_prints_a_verdict_only_when_it_changes() -> None:
    """Three equal verdicts make one line; a step has a line at its end."""
    console = Console(file=io.StringIO(), width=200)
    screen = LogScreen(console, lambda: 0.0)
    status = rollout_pb2.RolloutStatus(version="2", verdict=rollout_pb2.FAULTY, reason="5 of 41")
    for _ in range(3):
        screen.rollout(status)
    screen.step_changed(Step("Features", state="passed", note="done", took_s=2.0))

    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 2
    assert "FAULTY, 5 of 41" in lines[0]
    assert "Features: passed in 2.0 s. done" in lines[1]


def test_times_json_counts_from_the_first_bad_answer() -> None:
    """evidence_to_moved_ms counts from the verdict."""
    times = rollout_pb2.RollbackTimes(
        first_bad_unix_ns=10**18, verdict_unix_ns=10**18 + 3 * 10**9,
        moved_unix_ns=10**18 + 3_020_000_000, last_bad_unix_ns=10**18 + 2_900_000_000,
    )  # fmt: skip
    value = times_json(times)
    assert (value["verdict_ms"], value["moved_ms"], value["last_bad_ms"]) == (3000, 3020, 2900)
    assert value["evidence_to_moved_ms"] == 20


def test_prepare_folder_empties_only_a_folder_that_a_demo_made(tmp_path: Path) -> None:
    """Other files stay, a demo's files are replaced, a running demo's are left alone."""
    (tmp_path / "other.txt").write_text("years of work")
    with pytest.raises(OperatorError, match="not empty"):
        prepare_folder(tmp_path)
    assert (tmp_path / "other.txt").exists()

    folder = tmp_path / "demo"
    prepare_folder(folder)
    (folder / "old.txt").write_text("from an earlier demo")
    prepare_folder(folder)
    assert [path.name for path in folder.iterdir()] == [MARKER]

    write_system_file(folder, own_addresses())
    with pytest.raises(OperatorError, match="runs in"):
        prepare_folder(folder)


def test_traffic_generator_counts_failed_calls_by_status_code() -> None:
    """A refusal by a full gateway is UNAVAILABLE; an outcome may fail, too, with its own code."""
    import grpc

    from turnout.demo.traffic import OUTCOME_EVERY, TrafficGenerator

    class Busy:
        """A client whose gateway refuses every other call, and keeps no outcome in time."""

        calls = 0

        async def predict(self, *_args: object, **_named: object) -> object:
            self.calls += 1
            if self.calls % 2:
                raise PredictError(grpc.StatusCode.UNAVAILABLE, "full")
            return SimpleNamespace(version="1", role="production", prediction_id=b"1")

        async def report_outcome(self, *_args: object, timeout_s: float) -> None:
            assert timeout_s == TIMEOUT_S
            raise PredictError(grpc.StatusCode.DEADLINE_EXCEEDED, "late")

    # Send until an outcome was reported, and let the calls in flight end.
    async def send_until_outcomes_were_reported() -> CallCounts:
        traffic = TrafficGenerator(Busy(), "churn", 10, TIMEOUT_S, seed=1)  # type: ignore[arg-type]
        sending = asyncio.create_task(traffic.send(10_000.0))
        await wait_until(lambda: traffic.counts.answered >= OUTCOME_EVERY)
        sending.cancel()
        await traffic.finish()
        return traffic.counts

    # Each call that failed has its code, and so has each report.
    counts = asyncio.run(send_until_outcomes_were_reported())
    assert counts.failed == {"UNAVAILABLE": counts.sent - counts.answered}
    assert counts.outcomes == 0
    assert counts.outcomes_failed == {"DEADLINE_EXCEEDED": counts.answered // OUTCOME_EVERY}
    line = counts.summary_line(counts.began + 1.0, final=True)
    assert line["outcomes_failed"] == counts.outcomes_failed
