"""The virtual year: its customers are as described, and its verdicts can fail."""

import asyncio
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.year import __main__ as command
from benchmarks.year.planted_events import PLANTED_EVENTS, PlantedEvent, changed, effects_of, moved
from benchmarks.year.replay import OpenedIncident, SeenAlarm, YearIncidents, YearReplay, YearResult
from benchmarks.year.served_days import ServedVersions, serve_day
from benchmarks.year.year_calendar import FIRST_DAY, VersionCalendar
from benchmarks.year.year_models import YEAR_MODELS, ValueKind
from benchmarks.year.year_outcomes import OutcomeClock
from benchmarks.year.year_people import DayEffects, YearPeople
from benchmarks.year.year_verdicts import Outcome, judge_year
from benchmarks.year.year_versions import fit_version
from monitoring.jobs.grouping import MonitoringAlarm

FRAUD = next(model for model in YEAR_MODELS if model.name == "fraud")
SMALL = replace(FRAUD, persons_a_day=600)
EVENT = PlantedEvent(
    name="cents",
    models=("fraud",),
    first_day=10,
    last_day=12,
    effect=changed(scaled={"card:amount": 100.0}),
    kinds=frozenset({"features"}),
    stream="card:amount",
    cause="version/fraud/1",
    found_within=2,
    also=frozenset({"score"}),
)
QUIET = PlantedEvent(name="season", models=("fraud",), first_day=0, last_day=90, stream="usage")


def seen(
    day: int, kind: str = "features", stream: str = "card:amount", cause: str = "version/fraud/1"
) -> SeenAlarm:
    """Return an alarm of the look at a day of the year."""
    alarm = MonitoringAlarm(
        model="fraud",
        version="1",
        kind=kind,
        stream=stream,
        at=(FIRST_DAY + day + 1) * 86_400,
        since=(FIRST_DAY + day) * 86_400,
    )
    return SeenAlarm(alarm, OpenedIncident(0, "fraud", kind, cause, day, ""))


def outcome_of(*alarms: SeenAlarm, event: PlantedEvent = EVENT, days: int = 91) -> Outcome:
    """Return what became of an event in the days with these alarms."""
    result = YearResult(days, alarms, (), frozenset({"drift"}), version_days=days)
    (verdict,) = judge_year([event], ["fraud"], result).events
    return verdict.outcome


def test_verdict_says_what_became_of_an_event() -> None:
    """Found in time with its cause, late, under another cause, not at all, or not looked for."""
    assert outcome_of(seen(10)) is Outcome.FOUND
    assert outcome_of(seen(12)) is Outcome.LATE
    assert outcome_of(seen(10, cause="day/2025-01-16")) is Outcome.WRONG_CAUSE
    assert outcome_of(seen(10, kind="score", stream="score")) is Outcome.MISSED
    assert outcome_of(seen(9)) is Outcome.MISSED
    assert outcome_of(seen(10), event=replace(EVENT, host="gateway-2")) is Outcome.MISSED
    assert outcome_of(event=replace(EVENT, look="fairness")) is Outcome.NO_LOOK
    assert outcome_of(days=11) is Outcome.NOT_REPLAYED
    assert outcome_of(seen(10), event=replace(EVENT, models=("churn",))) is Outcome.NOT_REPLAYED
    assert outcome_of(seen(20), event=QUIET) is Outcome.SILENT
    assert outcome_of(seen(20, stream="usage:calls"), event=QUIET) is Outcome.ALARMED


def test_alarms_that_no_event_explains_are_counted_against_the_promise() -> None:
    """Consequences and echoes are explained; others are not."""
    explained = [seen(10), seen(11, kind="score"), seen(14)]
    false = [seen(40), seen(50, kind="score", stream="score")]
    result = YearResult(91, (*explained, *false), (), frozenset(), version_days=4 * 91)
    verdict = judge_year([EVENT], ["fraud"], result)
    assert verdict.false_alarms == tuple(false)
    assert verdict.promised_false_alarms == pytest.approx(1.0)
    assert not verdict.right
    quiet = judge_year([EVENT], ["fraud"], replace(result, alarms=(*explained, false[0])))
    assert quiet.right


def test_effects_last_or_end_and_versions_know_what_lasts() -> None:
    """A version that is fitted during a fault does not learn the fault."""
    lasting = PlantedEvent(
        name="drift",
        models=("fraud",),
        first_day=5,
        last_day=20,
        lasts=True,
        effect=moved("usage:calls", 0.8, 10),
    )
    events = (EVENT, lasting)
    during = effects_of(events, "fraud", 11)
    assert during.scaled == {"card:amount": 100.0}
    assert during.moved["usage:calls"] == pytest.approx(0.8 * 7 / 10)
    fitted = effects_of(events, "fraud", 11, lasting=True)
    assert (fitted.scaled, fitted.moved) == ({}, during.moved)
    assert effects_of(events, "fraud", 60).moved["usage:calls"] == pytest.approx(0.8)
    assert effects_of(events, "churn", 11) == DayEffects()


def test_customers_come_back_and_faults_are_as_planted() -> None:
    """Days have about the stated customers; weekends fewer; faults change what is served."""
    people = YearPeople(SMALL, seed=3)
    days = [people.day(FIRST_DAY + day, DayEffects()) for day in range(14)]
    sizes = np.array([len(day.person) for day in days])
    assert 500 < np.median(sizes[[0, 1, 2, 3, 4, 7, 8, 9, 10, 11]]) < 700
    assert sizes[5:7].mean() < 0.95 * sizes[:5].mean()
    assert np.isin(days[0].key_hash, days[1].key_hash).mean() > 0.15
    names = [feature.name for feature in SMALL.features]
    euros, country = names.index("card:amount"), names.index("card:country")
    faulty = people.day(
        FIRST_DAY + 14,
        DayEffects(
            scaled={"card:amount": 100.0},
            missing={"usage": 0.5},
            unknown={"card:country": (0.2, 1)},
            silent_hours=(9, 15),
        ),
    )
    ratio = np.median(faulty.vectors[:, euros]) / np.median(days[0].vectors[:, euros])
    assert ratio == pytest.approx(100.0, rel=0.3)
    assert faulty.missing.mean() == pytest.approx(0.5, abs=0.1)
    unknown = faulty.vectors[:, country] == 6
    assert unknown[faulty.host == 0].sum() == 0
    assert unknown[faulty.host == 1].mean() == pytest.approx(0.2, abs=0.1)
    hours = faulty.at_unix_ns // (3_600 * 10**9) % 24
    assert not ((hours >= 9) & (hours < 15)).any()


def test_version_is_calibrated_on_the_world_that_it_was_fitted_on() -> None:
    """Scores equal the probability of the outcome until something breaks."""
    people = YearPeople(SMALL, seed=4)
    version = fit_version(people, "1", FIRST_DAY, DayEffects())
    day = people.day(FIRST_DAY, DayEffects())
    scores = version.scores(day.vectors, day.group)
    np.testing.assert_allclose(scores, day.probability, rtol=1e-3)
    broken = people.day(FIRST_DAY + 1, DayEffects(scaled={"card:amount": 100.0}))
    wrong = version.scores(broken.vectors, broken.group)
    assert wrong.mean() > 2 * broken.probability.mean()
    assert version.facts.metric("auc") == pytest.approx(0.83, abs=0.04)


def test_outcomes_are_events_of_customers_and_as_frequent_as_scores_say() -> None:
    """Every open prediction of a customer gets the outcome; in all as many as were expected."""
    people = YearPeople(replace(SMALL, horizon_days=7, intercept=-2.0), seed=7)
    version = fit_version(people, "1", FIRST_DAY, DayEffects())
    clock, rng = OutcomeClock(people, seed=7), np.random.default_rng(7)
    expected, reports = 0.0, Counter[int]()
    customers: dict[tuple[int, int], set[int]] = defaultdict(set)
    for day in range(40):
        served = serve_day(
            rng,
            people.day(FIRST_DAY + day, DayEffects()),
            ServedVersions(version),
            DayEffects(late_days=2),
        )
        expected += float(served.people.probability.sum()) if day < 30 else 0.0
        for report in clock.pass_day(FIRST_DAY + day, served):
            predicted = report.predicted_unix_ms // 86_400_000 - FIRST_DAY
            assert day - 7 < predicted <= day
            assert report.received_unix_ms // 86_400_000 == FIRST_DAY + day + 3
            reports[predicted] += 1
            customers[day, report.key_hash].add(predicted)
    counted = sum(number for day, number in reports.items() if day < 30)
    assert counted == pytest.approx(expected, rel=0.1)
    # A fifth of the customers come on most days, and the days of one customer are one fact.
    assert max(len(days) for days in customers.values()) >= 6


def test_calendar_has_a_shadow_then_a_canary_then_production() -> None:
    """Each version is fitted once, and its reference is accepted after fourteen days."""
    calendar = VersionCalendar(YearPeople(SMALL, seed=5), ())
    before, shadow, canary, after = (calendar.serving(day) for day in (100, 113, 120, 126))
    assert [item.label for item in before.all] == ["1"]
    assert shadow.shadow is canary.canary is after.production
    assert (shadow.canary, canary.shadow) == (None, None)
    assert after.production.label == "2"
    assert calendar.deployed_on(126) == "2"
    assert calendar.accepted_on(140) == ("2", 126, 139)
    assert calendar.accepted_on(141) is None


def test_incident_of_a_cause_is_open_for_a_week_without_alarms() -> None:
    """A later alarm of the same cause opens another one."""
    incidents = YearIncidents()
    for day, number in ((1, 0), (5, 0), (12, 0), (20, 1)):
        incidents.today = day
        opening = incidents.open_incident(
            "fraud", "features", "version/fraud/1", severity=1, title="moved"
        )
        assert asyncio.run(opening).incident.id == str(number)
    assert [item.day for item in incidents.opened] == [1, 20]


def test_listed_events_are_of_models_and_inputs_that_exist() -> None:
    """A misspelt input would plant nothing."""
    features = {model.name: {item.name for item in model.features} for model in YEAR_MODELS}
    for event in PLANTED_EVENTS:
        assert set(event.models) <= set(features)
        for model in event.models:
            effects = effects_of((event,), model, event.first_day)
            named = {*effects.moved, *effects.scaled, *effects.unknown, *effects.weights}
            assert named <= features[model]
    kinds = {feature.kind for model in YEAR_MODELS for feature in model.features}
    assert kinds == set(ValueKind)


@pytest.mark.walk
def test_replayed_days_find_what_is_planted_in_them(tmp_path: Path) -> None:
    """Cents are found on their day under their cause, and the days before are silent."""
    events = (replace(EVENT, first_day=16, last_day=17),)
    result = YearReplay(tmp_path, [replace(FRAUD, persons_a_day=1_500)], events, seed=6).run(18)
    verdict = judge_year(events, ["fraud"], result)
    assert verdict.events[0].outcome is Outcome.FOUND
    assert verdict.events[0].latency_days == 1
    assert verdict.false_alarms == ()


@pytest.mark.nightly
def test_quarter_of_one_model_is_as_listed(tmp_path: Path) -> None:
    """The quick year has its table, its JSON and its picture, and exit code 0."""
    json_file = tmp_path / "year.json"
    arguments = ["--quick", "--json", str(json_file), "--pictures", str(tmp_path)]
    assert command.main(arguments) == 0
    assert (tmp_path / "year-fraud.svg").read_text().startswith("<?xml")


@pytest.mark.nightly
def test_whole_year_is_as_listed() -> None:
    """Every planted event of the four models."""
    assert command.main([]) == 0
