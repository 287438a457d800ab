"""A store that answers late gives both arms rows of defaults, which are not compared."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from rollout.evidence.evidence import Evidence
from rollout.policy.stages import Stage, StagePosition
from rollout.simulation.simulate import judge_ticks, single_share_policy
from rollout.simulation.streams import SCENARIOS, TrafficSecond, TrafficStream, as_closed_second

NOT_COMPARED = 63
POLICY = single_share_policy(500)


def degraded_seconds(seed: int, at: int) -> tuple[TrafficStream, Iterator[TrafficSecond]]:
    """Return a stream, and its seconds with 30 % of the candidate's rows in bin *at*."""
    stream = TrafficStream(SCENARIOS["healthy"], 0.05, seed)
    rng = np.random.default_rng(seed)

    def seconds() -> Iterator[TrafficSecond]:
        for tick in stream.seconds_of_traffic(300):
            arm = tick.candidate
            defaults = rng.random(arm.calls) < 0.3
            bins = np.where(defaults, at, arm.bin)
            champion = np.where(defaults, 9, arm.champion_bin)
            yield replace(tick, candidate=replace(arm, bin=bins, champion_bin=champion))

    return stream, seconds()


@pytest.mark.walk
def test_judge_does_not_compare_rows_of_defaults() -> None:
    """Gateways mark these rows. Their keys count for promotion."""
    stream, seconds = degraded_seconds(1, NOT_COMPARED)
    ticks = list(seconds)
    assert judge_ticks(ticks, POLICY, stream.shift).verdict == "undecided"
    evidence = Evidence("2", "1", POLICY, stream.shift)
    for tick in ticks:
        evidence.count_second(as_closed_second(tick, 1), StagePosition(Stage.CANARY), current=True)
    keys = sum(int((~tick.candidate.bad).sum()) for tick in ticks)
    assert evidence.canary_keys == keys
    assert 0.6 * keys < evidence.prediction.compared_keys < 0.8 * keys


def test_judge_rolls_back_rows_of_defaults_that_are_not_marked() -> None:
    """One score for a third of the customers is in no approved shift."""
    stream, seconds = degraded_seconds(1, 2)
    assert judge_ticks(seconds, POLICY, stream.shift).verdict == "rolled back"
