"""Tests of incidents in the store: one a cause, states, acts by policy, and what an audit finds."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from protos import registry_pb2 as pb
from registry.incidents.incident_store import IncidentStore
from registry.runs.run_store import RunStore
from registry.storage.store import RegistryStore
from registry.types import (
    BadRequestError,
    GateError,
    NotFoundError,
    RevisionConflictError,
)
from tests.registry.project_definitions import PLAN, definitions_of
from tests.registry.runs.test_run_store import Clock
from tests.registry.storage.test_store import execute_sql

pytestmark = pytest.mark.walk

Change = pb.ChangeIncidentRequest


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
def store(registry: RegistryStore) -> IncidentStore:
    """The registry's incidents, with the model churn that they are about."""
    incidents = IncidentStore(registry)
    place = pb.OutsideModel(model="churn", owner="crm", purpose="whom we call", place="mainframe")
    incidents.add_outside_model("olga", place)
    return incidents


def opening(**fields: Any) -> pb.OpenIncidentRequest:  # noqa: ANN401  fields of the request
    """Return the request for an incident of churn."""
    given = {
        "model": "churn",
        "kind": "auc",
        "cause": "auc/churn",
        "severity": pb.Incident.WARNING,
        "title": "AUC fell by .04",
        "figures_json": '{"auc": 0.71}',
        "automatic": True,
    }
    return pb.OpenIncidentRequest(**{**given, **fields})


def change(store: IncidentStore, incident: pb.Incident, **fields: Any) -> pb.Incident:  # noqa: ANN401
    """Change an incident, as it was read, in the name of cleo."""
    given = {"id": incident.id, "revision": incident.revision}
    return store.change_incident("cleo", Change(**{**given, **fields}))


def close(store: IncidentStore, incident: pb.Incident) -> pb.Incident:
    """Close an incident as real."""
    return change(store, incident, change=Change.CLOSE, resolution=pb.Incident.REAL, text="mended")


def apply_policy(registry: RegistryStore, monitoring: Mapping[str, Any]) -> None:
    """Apply a project in which churn has this monitoring policy."""
    model = {"owner": "network-ds", "purpose": "p", "monitoring": monitoring}
    request = pb.ApplyProjectRequest(
        name="shop",
        definitions=definitions_of(models={"churn": model}),
        plan_digest=PLAN,
        reason="watch it",
    )
    registry.apply_project("olga", request, (), operator=True)


def findings(registry: RegistryStore) -> list[tuple[str, str]]:
    """Return kind and version of all findings."""
    return [(finding.kind, finding.version) for finding in registry.findings_after(0)]


def test_incident_of_an_unknown_model_is_refused(store: IncidentStore) -> None:
    """A typing error would open an incident that no list of the model shows."""
    with pytest.raises(NotFoundError, match="there is no model 'chrun'"):
        store.open_incident("bob", opening(model="chrun"))
    assert not store.list_incidents(pb.ListIncidentsRequest()).incidents


def test_one_cause_is_one_incident_until_it_is_closed(
    registry: RegistryStore, store: IncidentStore
) -> None:
    """Two equal alarms are one incident; after its end the cause opens another one."""
    first = store.open_incident("watch", opening())
    again = store.open_incident("watch", opening(figures_json='{"auc": 0.70}'))
    assert (first.opened, again.opened) == (True, False)
    assert again.incident == first.incident
    assert len(findings(registry)) == 1
    close(store, first.incident)
    second = store.open_incident("watch", opening())
    assert second.opened
    assert second.incident.id != first.incident.id
    listed = store.list_incidents(pb.ListIncidentsRequest(model="churn"))
    assert [incident.id for incident in listed.incidents] == [second.incident.id, first.incident.id]
    assert not store.list_incidents(pb.ListIncidentsRequest(model="credit")).incidents


def test_same_cause_with_a_higher_severity_raises_the_incident(store: IncidentStore) -> None:
    """The severity never falls by itself."""
    opened = store.open_incident("watch", opening()).incident
    raised = store.open_incident(
        "watch", opening(severity=pb.Incident.PAGE, figures_json='{"auc": 0.6}')
    ).incident
    assert (raised.severity, raised.raised, raised.revision) == (pb.Incident.PAGE, 1, 2)
    assert raised.figures_json == '{"auc":0.6}'
    lower = store.open_incident("watch", opening(severity=pb.Incident.REVIEW)).incident
    assert lower == raised
    assert opened.id == raised.id


def test_states_follow_each_other_with_actor_and_time(store: IncidentStore, clock: Clock) -> None:
    """Each act is timed; an act that the state does not allow is refused in words."""
    incident = store.open_incident("watch", opening()).incident
    clock.ms += 60_000
    seen = change(store, incident, change=Change.ACKNOWLEDGE, text="I look")
    assert (seen.state, seen.owner, seen.acknowledged_by) == (
        pb.Incident.ACKNOWLEDGED,
        "cleo",
        "cleo",
    )
    assert seen.acknowledged_unix_ms - seen.opened_unix_ms == 60_000
    with pytest.raises(GateError, match="acknowledged already"):
        change(store, seen, change=Change.ACKNOWLEDGE)
    done = change(store, seen, change=Change.MITIGATE, text="went back to 6")
    ended = close(store, done)
    assert (ended.state, ended.resolution) == (pb.Incident.CLOSED, pb.Incident.REAL)
    with pytest.raises(GateError, match="stays closed"):
        change(store, ended, change=Change.MITIGATE)
    # A comment is possible for ever, and the notes are in order.
    noted = change(store, ended, change=Change.COMMENT, text="the source was late")
    kinds = [(note.kind, note.text) for note in noted.notes]
    assert kinds == [
        ("acknowledge", "I look"),
        ("mitigate", "went back to 6"),
        ("close", "mended"),
        ("comment", "the source was late"),
    ]


def test_change_from_an_older_revision_is_refused(store: IncidentStore) -> None:
    """Two people who act at once: the second one reads again."""
    incident = store.open_incident("watch", opening()).incident
    change(store, incident, change=Change.ASSIGN, owner="dora")
    with pytest.raises(RevisionConflictError, match="revision 2"):
        change(store, incident, change=Change.ACKNOWLEDGE)
    with pytest.raises(BadRequestError, match="real, false alarm or expected"):
        change(store, store.get_incident(incident.id), change=Change.CLOSE, text="over")


def test_hold_lasts_until_the_last_incident_of_the_version_is_closed(
    registry: RegistryStore, store: IncidentStore
) -> None:
    """The clear is written with the end of the last one, and never over a person's hold."""
    one = store.open_incident("watch", opening(version="7")).incident
    two = store.open_incident("watch", opening(version="7", cause="other")).incident
    assert findings(registry) == [("hold", "7"), ("hold", "7")]
    close(store, two)
    assert findings(registry)[2:] == []
    close(store, one)
    assert findings(registry)[2:] == [("clear", "7")]
    # A hold that a person has cleared already is not cleared again.
    cleared = store.open_incident("watch", opening(version="8")).incident
    registry.write_finding("cleo", pb.Finding(model="churn", version="8", kind="clear"))
    close(store, cleared)
    assert findings(registry)[3:] == [("hold", "8"), ("clear", "8")]
    # A person's hold is newer than the incident's.
    three = store.open_incident("watch", opening(version="7")).incident
    registry.write_finding("cleo", pb.Finding(model="churn", version="7", kind="hold", text="me"))
    close(store, three)
    assert findings(registry)[5:] == [("hold", "7"), ("hold", "7")]


def test_policy_of_the_project_decides_what_follows(
    registry: RegistryStore, store: IncidentStore
) -> None:
    """Note, hold, roll back, retrain: each writes its finding, and a retrain is queued."""
    apply_policy(
        registry,
        {"owner": "ops", "acts": {"auc": "retrain", "risk": "rollback", "quality": "hold"}},
    )
    kinds = ("auc", "risk", "quality", "score")
    opened = {
        kind: store.open_incident("watch", opening(kind=kind, cause=kind, version="7")).incident
        for kind in kinds
    }
    assert [opened[kind].act for kind in kinds] == ["retrain", "rollback", "hold", "note"]
    assert [kind for kind, _ in findings(registry)] == ["retrain", "rollback", "hold", "score"]
    assert {incident.owner for incident in opened.values()} == {"ops"}
    run = RunStore(registry).get_run(opened["auc"].run)
    assert (run.state, run.key) == (pb.Run.QUEUED, f"incident-{opened['auc'].id}")
    # A rollback without a version holds: nothing says what to leave.
    unnamed = store.open_incident("watch", opening(kind="risk", cause="x")).incident
    assert (unnamed.act, findings(registry)[-1]) == ("hold", ("hold", ""))


def test_incident_of_a_person_acts_by_no_policy(
    registry: RegistryStore, store: IncidentStore
) -> None:
    """A person who opens an incident decides what to do."""
    by_hand = opening(kind="manual", automatic=False, figures_json="")
    incident = store.open_incident("cleo", by_hand).incident
    assert (incident.act, incident.finding, incident.figures_json) == ("note", 0, "{}")
    assert findings(registry) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "mood"}, "is not known"),
        ({"kind": "manual"}, "is not known"),
        ({"model": "a b"}, "does not match"),
        ({"cause": " "}, "cause is empty"),
        ({"title": ""}, "title is empty"),
        ({"severity": 0}, "REVIEW, WARNING and PAGE"),
        ({"figures_json": '{"auc": NaN}'}, "left out"),
        ({"figures_json": "[1]"}, "no JSON object"),
        ({"links": [pb.IncidentNote(kind="moon", text="1")]}, "a link of kind"),
        ({"links": [pb.IncidentNote(kind="url", text="javascript:alert(1)")]}, "http://"),
    ],
)
def test_bad_opening_is_refused_and_writes_nothing(
    registry: RegistryStore, store: IncidentStore, fields: dict[str, Any], words: str
) -> None:
    """The text says what an incident needs."""
    with pytest.raises(BadRequestError) as refused:
        store.open_incident("watch", opening(**fields))
    assert words in str(refused.value)
    assert not store.list_incidents(pb.ListIncidentsRequest()).incidents
    assert findings(registry) == []


@pytest.mark.parametrize(
    "text",
    ["javascript:alert(1)", "JAVASCRIPT://x/%0aalert(1)", "data:text/html,x", "file:///etc/passwd",
     "//wiki.example.org", "wiki.example.org", "http:///page", "http://[::1", " https://a.b"],
)  # fmt: skip
def test_url_of_a_link_is_a_web_address(store: IncidentStore, text: str) -> None:
    """A reader clicks on it, so no other scheme gets into the registry."""
    incident = store.open_incident("watch", opening()).incident
    link = pb.IncidentNote(kind="url", text=text)
    with pytest.raises(BadRequestError, match="begins with http:// or https://"):
        change(store, incident, change=pb.ChangeIncidentRequest.LINK, link=link)
    for address in ("https://wiki.example.org/1?a=b", "HTTP://wiki:8080"):
        link = pb.IncidentNote(kind="url", text=address)
        change(store, incident, change=pb.ChangeIncidentRequest.LINK, link=link)
    notes = store.get_incident(incident.id).notes
    assert [note.text for note in notes] == ["https://wiki.example.org/1?a=b", "HTTP://wiki:8080"]


def test_watch_goes_on_after_the_entry_that_was_seen(store: IncidentStore) -> None:
    """Each change, also a comment, gives the incident a later number."""
    one = store.open_incident("watch", opening()).incident
    two = store.open_incident("watch", opening(cause="other")).incident
    assert [item.id for item in store.incidents_after(0)] == [one.id, two.id]
    noted = change(store, one, change=Change.COMMENT, text="seen")
    assert [item.id for item in store.incidents_after(two.sequence)] == [one.id]
    assert store.incidents_after(noted.sequence) == []
    with pytest.raises(NotFoundError, match="at least 4 digits"):
        store.get_incident("ab")


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE incidents SET severity = 1", "table incidents"),
        ("UPDATE incidents SET sequence = 99 WHERE cause = 'quiet'", "table incidents"),
        ("DELETE FROM incident_notes", "table incident_notes"),
        ("UPDATE incident_notes SET text = 'other'", "table incident_notes"),
        ("UPDATE outside_models SET owner = 'x'", "table outside_models"),
    ],
)
def test_edited_row_is_found(tmp_path: Path, clock: Clock, statement: str, words: str) -> None:
    """Incidents are proven by the history as versions and approvals are."""
    folder = tmp_path / "registry"
    registry = RegistryStore(folder, clock.now_ns)
    store = IncidentStore(registry)
    outside = pb.OutsideModel(model="churn", owner="risk", purpose="p", place="mainframe")
    store.add_outside_model("olga", outside)
    incident = store.open_incident("watch", opening(severity=pb.Incident.PAGE)).incident
    change(store, incident, change=Change.COMMENT, text="seen")
    store.open_incident("watch", opening(cause="quiet"))
    with pytest.raises(GateError, match="is known already"):
        store.add_outside_model("olga", outside)
    registry.prove_again()
    assert not registry.stopped_reason
    registry.close()
    execute_sql(folder, statement)
    reopened = RegistryStore(folder, clock.now_ns)
    assert words in reopened.stopped_reason
    reopened.close()
