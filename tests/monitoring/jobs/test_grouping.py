"""One cause is one incident, harm pages people, and drift alone does not."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.jobs.grouping import (
    WINDOW_S,
    AlarmGroup,
    MonitoringAlarm,
    OtherChange,
    group_alarms,
)
from monitoring.jobs.severity import SEVERITIES, Severity, severity_of
from tests.property_examples import examples

MONDAY = 1_795_996_800
"""2026-11-30 00:00 UTC."""
DAY = 86_400


def alarm(
    model: str = "churn",
    stream: str = "score",
    *,
    kind: str = "features",
    view: str = "",
    host: str = "",
    day: int = 0,
    version: str = "7",
) -> MonitoringAlarm:
    """Return an alarm at the end of a day, about a change of that day."""
    since = MONDAY + day * DAY
    return MonitoringAlarm(
        model=model,
        version=version,
        kind=kind,
        stream=stream,
        at=since + DAY,
        since=since,
        view=view,
        host=host,
    )


def causes(*alarms: MonitoringAlarm) -> dict[str, set[str]]:
    """Return cause -> the streams of its alarms, by model."""
    return {
        group.cause: {f"{item.model}:{item.stream}" for item in group.alarms}
        for group in group_alarms(alarms)
    }


def test_harm_pages_and_drift_goes_to_the_review() -> None:
    """The table, written a second time on purpose: a change of it is a change of a promise."""
    pages = {"quality", "silence", "calibration", "risk", "auc", "fairness"}
    warnings = {"coverage", "outcomes", "holdout", "uplift"}
    reviews = {"score", "features"}
    assert {kind for kind in SEVERITIES if severity_of(kind) is Severity.PAGE} == pages
    assert {kind for kind in SEVERITIES if severity_of(kind) is Severity.WARNING} == warnings
    assert {kind for kind in SEVERITIES if severity_of(kind) is Severity.REVIEW} == reviews
    assert all(severity_of(kind, shadow=True) < Severity.PAGE for kind in SEVERITIES)
    assert all(rule.shadow <= rule.serving and rule.reason for rule in SEVERITIES.values())
    with pytest.raises(KeyError):
        severity_of("weather")


def test_alarms_of_a_view_are_one_incident_with_the_scores_that_follow() -> None:
    """One view breaks in three models; their scores move. That is one incident, and it pages."""
    broken = [
        alarm(
            model, f"{feature}", view="usage", kind="quality" if feature == "calls" else "features"
        )
        for model in ("churn", "upsell", "fraud")
        for feature in ("calls", "minutes")
    ]
    scores = [alarm(model, "score", kind="score", day=1) for model in ("churn", "upsell")]
    elsewhere = alarm("roaming", "score", kind="score")
    groups = group_alarms([*scores, elsewhere, *broken])
    assert [group.cause for group in groups] == ["view/usage", "version/roaming/7"]
    assert len(groups[0].alarms) == 8
    assert groups[0].models == ("churn", "fraud", "upsell")
    assert (groups[0].severity, groups[0].kind) == (Severity.PAGE, "quality")
    assert groups[1].severity is Severity.REVIEW
    assert groups[0].since == MONDAY


def test_alarms_of_a_host_are_one_incident() -> None:
    """One host has a stale dictionary: the host explains more alarms than any view."""
    stale = [
        alarm("churn", "plan", kind="quality", view="contract", host="gw-2"),
        alarm("upsell", "region", kind="quality", view="address", host="gw-2"),
        alarm("upsell", "plan", kind="quality", view="contract", host="gw-2"),
    ]
    assert list(causes(*stale)) == ["host/gw-2"]


def test_single_alarm_of_broken_data_names_its_view_and_drift_its_version() -> None:
    """One feature that drifts says nothing of its view; missing rows do."""
    assert list(causes(alarm(stream="missing", kind="quality", view="usage"))) == ["view/usage"]
    assert list(causes(alarm(stream="minutes", view="usage"))) == ["version/churn/7"]


def test_a_stream_that_alarms_again_keeps_its_cause() -> None:
    """On the second day its view has two alarms, and still one stream."""
    first = [alarm(stream="card:amount", view="card"), alarm(kind="score")]
    again = [replace(item, at=item.at + DAY) for item in first]
    assert causes(*first).keys() == causes(*first, *again).keys() == {"version/churn/7"}


def test_alarms_of_one_version_are_one_incident() -> None:
    """Features of different views and the score, in the same days."""
    assert causes(
        alarm(stream="a", view="usage"), alarm(stream="b", view="bills"), alarm(kind="score")
    ) == {"version/churn/7": {"churn:a", "churn:b", "churn:score"}}


def test_models_that_alarm_on_one_day_have_the_day_as_their_cause() -> None:
    """Two models without a common view: a holiday, not two incidents. The next day is another."""
    assert list(causes(alarm("churn"), alarm("fraud"))) == ["day/2026-11-30"]
    assert set(causes(alarm("churn"), alarm("fraud", day=1))) == {
        "version/churn/7",
        "version/fraud/7",
    }


def test_alarms_weeks_apart_are_two_incidents() -> None:
    """A view is broken on Monday and again on day 20."""
    groups = group_alarms(
        alarm(stream=stream, view="usage", kind="quality", day=day)
        for day in (0, 20)
        for stream in ("a", "b")
    )
    assert [group.cause for group in groups] == ["view/usage", "view/usage"]
    assert [len(group.alarms) for group in groups] == [2, 2]


def test_incident_lists_what_changed_in_the_48_hours_before() -> None:
    """What has to do with its alarms comes first. Older and later changes are left out."""

    def change(hours: float, subject: str) -> OtherChange:
        at = int(MONDAY - hours * 3_600)
        return OtherChange(at=at, kind="edition", subject=subject, text=f"{subject} at {hours}")

    changes = [
        change(47, "usage"),
        change(49, "usage"),
        change(2, "bills"),
        change(5, "churn"),
        change(-30, "usage"),
        change(-3, "gw-9"),
    ]
    (group,) = group_alarms([alarm(kind="quality", view="usage")], changes)
    assert [item.text for item in group.changes] == [
        "churn at 5",
        "usage at 47",
        "gw-9 at -3",
        "bills at 2",
    ]


some_alarms = st.lists(
    st.builds(
        alarm,
        st.sampled_from(["churn", "fraud", "upsell"]),
        st.sampled_from(["a", "b", "score"]),
        kind=st.sampled_from(sorted(SEVERITIES)),
        view=st.sampled_from(["", "usage", "bills"]),
        host=st.sampled_from(["", "", "gw-1"]),
        day=st.integers(0, 9),
    ),
    max_size=12,
)


@examples(150)
@given(some_alarms, st.integers(0, 1_000))
def test_each_alarm_is_in_one_incident_whatever_the_order(
    alarms: list[MonitoringAlarm], seed: int
) -> None:
    """Nothing is lost, doubled or dependent on the order; each has the severity of its worst."""
    groups = group_alarms(alarms)
    grouped = [item for group in groups for item in group.alarms]
    assert sorted(map(repr, grouped)) == sorted(map(repr, set(alarms)))
    shuffled = alarms.copy()
    random.Random(seed).shuffle(shuffled)
    assert group_alarms(shuffled) == groups
    for group in groups:
        assert group.severity is max(item.severity for item in group.alarms)
        assert _explains(group)


def _explains(group: AlarmGroup) -> bool:
    kind, _, name = group.cause.partition("/")
    if kind in ("view", "host"):
        return any(getattr(item, kind) == name for item in group.alarms)
    if kind == "version":
        return all(f"{item.model}/{item.version}" == name for item in group.alarms)
    return len(group.models) >= 2


def test_alarm_severity_of_a_shadow_is_lower() -> None:
    """No caller gets its scores, so nobody is woken."""
    broken = alarm(kind="quality", view="usage")
    assert broken.severity is Severity.PAGE
    assert replace(broken, shadow=True).severity is Severity.WARNING
    assert WINDOW_S == 172_800
