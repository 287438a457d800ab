"""Looks at groups of people: unfair ones are found, small ones are never shown."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from monitoring.jobs.fairness import (
    FairnessReport,
    FairnessState,
    PeopleLook,
    group_state_from,
    look_at_groups,
)
from stats.accuracy.labelled_bins import logits, sigmoid
from stats.fairness.groups import DeclaredAttribute
from stats.fairness.verdicts import GroupVerdict

REGIONS = ("north", "south", "islands")
AGES = ("young", "old")


def draw_people(
    generator: np.random.Generator, n: int, *, islands: int = 4, bias: float = 0.0
) -> tuple[PeopleLook, list[DeclaredAttribute]]:
    """Return people; *bias* lowers the scores of the south, and *islands* people live there."""
    regions = np.r_[np.arange(n - islands) % 2, np.full(islands, 2)]
    ages = generator.integers(0, 2, n)
    chances = generator.beta(2, 4, n)
    scores = sigmoid(logits(chances) - bias * (regions == 1))
    labelled = generator.random(n) < 0.8
    look = PeopleLook(scores >= 0.4, scores, labelled, generator.random(n) < chances)
    attributes = [
        DeclaredAttribute("region", regions, REGIONS),
        DeclaredAttribute("age", ages, AGES),
    ]
    return look, attributes


def run_looks(bias: float, looks: int = 8, n: int = 1_500) -> tuple[FairnessState, FairnessReport]:
    """Return state and report after some looks."""
    generator = np.random.default_rng(1)
    state: FairnessState = {}
    for _ in range(looks):
        people, attributes = draw_people(generator, n, bias=bias)
        state, report = look_at_groups(state, people, attributes)
    return state, report


@pytest.mark.walk
def test_unfair_group_is_outside_and_fair_ones_are_within() -> None:
    """The south has lower scores than its people deserve: selection, TPR and calibration."""
    _, fair = run_looks(0.0)
    assert not fair.incidents
    verdicts = {metric.verdict for group in fair.groups for metric in group.metrics}
    assert GroupVerdict.OUTSIDE not in verdicts
    assert GroupVerdict.WITHIN in verdicts
    _, unfair = run_looks(1.0)
    outside = {
        (group.name, metric.metric)
        for group in unfair.groups
        for metric in group.metrics
        if metric.verdict is GroupVerdict.OUTSIDE
    }
    for metric in ("selection_rate", "tpr", "calibration"):
        assert ("region=south", metric) in outside
    assert outside <= set(unfair.incidents)


@pytest.mark.walk
def test_incidents_of_fair_versions_are_as_rare_as_the_budget_asks() -> None:
    """A year of looks at groups that are alike, with a part that a test can see: .5 a year."""
    incidents = 0
    for seed in range(12):
        generator, state = np.random.default_rng(seed), {}
        raised: set[tuple[str, str]] = set()
        for _ in range(13):
            people, attributes = draw_people(generator, 300)
            state, report = look_at_groups(state, people, attributes, incidents_max=0.5)
            raised |= set(report.incidents)
        incidents += len(raised)
    # 6 are allowed on average; 12 or more of a Poisson number come in 2 of 100 tests.
    assert incidents < 12


def test_incident_needs_less_evidence_where_more_incidents_are_allowed() -> None:
    """The verdict does not move; it has a level of its own."""
    generator = np.random.default_rng(1)
    people, attributes = draw_people(generator, 1_500, bias=1.0)
    found = [
        look_at_groups({}, people, attributes, incidents_max=allowed)[1]
        for allowed in (1e-30, 0.01, 0.5)
    ]
    assert not found[0].incidents
    assert set(found[1].incidents) < set(found[2].incidents)
    assert found[0].groups == found[2].groups


def test_group_under_ten_is_in_no_field_text_or_json() -> None:
    """Four islanders are in no sum either, so nothing follows from a difference."""
    state, report = run_looks(0.0, looks=2, n=400)
    assert report.groups
    shown = json.dumps([report.definition(), {k: v.definition() for k, v in state.items()}])
    for text in (shown, repr(report), repr(state), str(list(state))):
        assert "islands" not in text
    people = {group.name: group.people for group in report.groups}
    assert people["region=north"] + people["region=south"] == 2 * (400 - 4)
    assert people["age=young"] + people["age=old"] == 2 * (400 - 4)


def test_rate_of_fewer_than_ten_people_is_not_counted() -> None:
    """Nine of thirty people of the north have the outcome: no TPR, and a selection rate."""
    codes = np.arange(90) % 3
    positive = (codes > 0) | (np.arange(90) < 27)
    scores, everybody = np.full(90, 0.6), np.ones(90, dtype=np.bool_)
    look = PeopleLook(everybody, scores, everybody, positive)
    state, report = look_at_groups({}, look, [DeclaredAttribute("region", codes, ("n", "s", "e"))])
    assert int((positive & (codes == 0)).sum()) == 9
    assert state["region=n"].rates["tpr"].counts.people == 0
    assert state["region=n"].rates["selection_rate"].counts.people == 30
    tpr = report.groups[0].metrics[1]
    assert (tpr.metric, tpr.rate.value) == ("tpr", None)


def test_state_resumes_exactly_from_json() -> None:
    """A look after a restart gives the same report."""
    generator = np.random.default_rng(2)
    state: FairnessState = {}
    people, attributes = draw_people(generator, 300)
    state, _ = look_at_groups(state, people, attributes)
    content = json.loads(json.dumps({name: group.definition() for name, group in state.items()}))
    resumed = {name: group_state_from(group) for name, group in content.items()}
    assert resumed == dict(state)
    people, attributes = draw_people(generator, 300)
    assert look_at_groups(resumed, people, attributes) == look_at_groups(state, people, attributes)


def test_labels_that_are_equal_and_people_who_are_none_have_no_verdict() -> None:
    """All positive, all unlabelled, nobody, and a group of one."""
    scores = np.linspace(0.1, 0.9, 60)
    yes, no = np.ones(60, dtype=np.bool_), np.zeros(60, dtype=np.bool_)
    codes = np.arange(60) % 2
    attributes = [DeclaredAttribute("region", codes, REGIONS[:2])]
    for labelled, positive in ((yes, yes), (yes, no), (no, no)):
        look = PeopleLook(scores > 0.5, scores, labelled, positive)
        _, report = look_at_groups({}, look, attributes)
        for group in report.groups:
            rates = {metric.metric: metric for metric in group.metrics}
            assert rates["tpr"].verdict is GroupVerdict.NOT_ENOUGH_DATA
            assert rates["fpr"].text.startswith("not enough data")
            assert group.area.value is None
            assert (rates["tpr"].rate.value is None) == (not (labelled & positive).any())
    nobody = PeopleLook(no[:0], scores[:0], no[:0], no[:0])
    empty = [DeclaredAttribute("region", codes[:0], REGIONS)]
    assert look_at_groups({}, nobody, empty) == ({}, FairnessReport((), ()))
    one = np.r_[np.zeros(59, dtype=np.int64), 1]
    single = [DeclaredAttribute("region", one, REGIONS[:2])]
    assert look_at_groups({}, PeopleLook(yes, scores, yes, yes), single)[1].groups == ()
    bad: NDArray[np.float64] = np.full(60, np.nan)
    with pytest.raises(ValueError, match="finite scores"):
        PeopleLook(yes, bad, yes, yes)
    with pytest.raises(ValueError, match="of other people"):
        look_at_groups({}, nobody, single)
