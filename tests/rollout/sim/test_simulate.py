"""`turnout rollout simulate`: simulated and recorded traffic through the judge."""

import json

import numpy as np
import pytest

from protos import journal_pb2, predict_pb2
from rollout.simulation.recorded import replay_journal
from rollout.simulation.simulate import judge_ticks, single_share_policy
from rollout.simulation.streams import NS, STREAM_START_S
from turnout.__main__ import main


def served_batch(role: int, version: str, keys: range, second: int) -> journal_pb2.ServedBatch:
    """Return one batch of a gateway's journal."""
    calls = len(keys)
    return journal_pb2.ServedBatch(
        model="churn",
        version=version,
        at_unix_ns=np.full(calls, (STREAM_START_S + second) * NS + 7, dtype="<i8").tobytes(),
        role=np.full(calls, role, dtype=np.uint8).tobytes(),
        key_hash=np.array(keys, dtype="<u8").tobytes(),
    )


def recorded_batches(fallbacks: int) -> list[journal_pb2.ServedBatch]:
    """Return ten seconds of 5 canary calls, of which *fallbacks* fell back, and 95 others."""
    batches = []
    for second in range(10):
        first = second * 1000
        batches += [
            served_batch(predict_pb2.CANARY, "2", range(first, first + 5 - fallbacks), second),
            served_batch(
                predict_pb2.FALLBACK, "1", range(first + 100, first + 100 + fallbacks), second
            ),
            served_batch(predict_pb2.PRODUCTION, "1", range(first + 200, first + 295), second),
        ]
    return batches


@pytest.mark.parametrize(("fallen_back", "verdict"), [(0, "undecided"), (4, "rolled back")])
def test_replay_judges_the_calls_of_a_journal(fallen_back: int, verdict: str) -> None:
    """A call that production answered in the canary's place is a failure of the canary."""
    ticks = list(replay_journal(recorded_batches(fallen_back), "churn", "2", 0.05))
    assert [tick.second for tick in ticks] == list(range(10))
    assert sum(tick.candidate.calls for tick in ticks) == 50
    assert judge_ticks(ticks, single_share_policy(500)).verdict == verdict


def test_replay_of_another_model_is_empty() -> None:
    """No second is yielded."""
    assert not list(replay_journal(recorded_batches(1), "fraud", "2", 0.05))


@pytest.mark.walk
def test_simulate_command_rolls_back_a_failing_candidate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The JSON has one summary."""
    line = ["rollout", "simulate", "failing", "--seconds", "5", "--json"]
    with pytest.raises(SystemExit) as left:
        main(line)
    assert left.value.code == 0
    summaries = json.loads(capsys.readouterr().out)
    assert summaries[0]["judge"] == "Turnout"
    assert summaries[0]["verdict"] == "rolled back"
    assert len(summaries) == 1


@pytest.mark.walk
def test_simulate_command_refuses_an_unknown_scenario(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It exits with code 1 and lists the scenarios."""
    with pytest.raises(SystemExit) as left:
        main(["rollout", "simulate", "nothing"])
    assert left.value.code == 1
    assert "errors-5" in capsys.readouterr().err
