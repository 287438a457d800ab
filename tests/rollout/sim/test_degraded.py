"""A store that answers late gives both arms rows of defaults: nobody's fault."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from rollout.evidence.evidence import Evidence
from rollout.policy.stages import Place, Stage
from rollout.simulation.simulate import at_share, judged
from rollout.simulation.streams import SCENARIOS, Stream, Tick, second_of

NOT_COMPARED = 63
POLICY = at_share(500)


def ticks(seed: int, at: int) -> tuple[Stream, Iterator[Tick]]:
    """A healthy stream; a third of the candidate's rows are defaults, scored in bin *at*."""
    stream = Stream(SCENARIOS["healthy"], 0.05, seed)
    chance = np.random.default_rng(seed)

    def told() -> Iterator[Tick]:
        for tick in stream.ticks(300):
            arm = tick.candidate
            defaults = chance.random(arm.calls) < 0.3
            bins = np.where(defaults, at, arm.bin)
            champion = np.where(defaults, 9, arm.champion_bin)
            yield replace(tick, candidate=replace(arm, bin=bins, champion_bin=champion))

    return stream, told()


def test_rows_of_defaults_accuse_nobody() -> None:
    """As gateways mark them: not compared, yet their keys count towards promotion."""
    stream, told = ticks(1, NOT_COMPARED)
    whole = list(told)
    assert judged(whole, POLICY, stream.shift).verdict == "undecided"
    evidence = Evidence("2", "1", POLICY, stream.shift)
    for tick in whole:
        evidence.take(second_of(tick, 1), Place(Stage.CANARY), current=True)
    keys = sum(int((~tick.candidate.bad).sum()) for tick in whole)
    assert evidence.canary_keys == keys
    assert 0.6 * keys < evidence.prediction.keys < 0.8 * keys


def test_unmarked_they_would() -> None:
    """One score for a third of the customers is in no certificate."""
    stream, told = ticks(1, 2)
    assert judged(told, POLICY, stream.shift).verdict == "rolled back"
