"""Tests of incidents as values: in every state every change is refused in words, or follows."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import registry_pb2 as pb
from registry.types import BadRequestError, GateError, RegistryError, RevisionConflictError
from registry.watching.incidents import (
    Change,
    canonical_figures,
    changed_columns,
    check_may_change,
)
from tests.property_examples import examples

ALLOWED: dict[int, set[int]] = {
    pb.Incident.OPEN: {Change.ACKNOWLEDGE, Change.MITIGATE, Change.CLOSE},
    pb.Incident.ACKNOWLEDGED: {Change.MITIGATE, Change.CLOSE},
    pb.Incident.MITIGATED: {Change.CLOSE},
    pb.Incident.CLOSED: set(),
}
"""State -> the changes of state that it allows."""
STATE_CHANGES: set[int] = {Change.ACKNOWLEDGE, Change.MITIGATE, Change.CLOSE}


def wanted(change: int, revision: int) -> pb.ChangeIncidentRequest:
    """Return a complete request for a change."""
    return pb.ChangeIncidentRequest(
        change=pb.ChangeIncidentRequest.Change.Name(change),
        revision=revision,
        text="a reason",
        owner="dora",
        resolution=pb.Incident.REAL,
        link=pb.IncidentNote(kind="run", text="4f2a"),
        severity=pb.Incident.WARNING,
    )


@examples(200)
@given(
    st.sampled_from(sorted(ALLOWED)),
    st.sampled_from(sorted(pb.ChangeIncidentRequest.Change.values())),
    st.integers(1, 9),
    st.integers(1, 9),
)
def test_change_follows_the_states(state: int, change: int, revision: int, read: int) -> None:
    """A change of state is allowed by the table alone, and by compare-and-set."""
    incident = pb.Incident(
        id="ab12", state=pb.Incident.State.Name(state), revision=revision, severity="PAGE"
    )
    request = wanted(change, read)
    if change in (Change.COMMENT, Change.LINK):
        assert changed_columns(incident, request, "cleo", 7) == {}
        return
    refused = (
        read != revision
        or state == pb.Incident.CLOSED
        or change == Change.UNSPECIFIED
        or (change in STATE_CHANGES and change not in ALLOWED[state])
    )
    try:
        columns = changed_columns(incident, request, "cleo", 7)
    except RegistryError:
        assert refused
        return
    assert not refused
    # The revision grows by one, and a severity never falls.
    assert columns["revision"] == revision + 1
    assert columns.get("severity", pb.Incident.PAGE) == pb.Incident.PAGE


def test_stale_revision_is_named_before_the_state() -> None:
    """Whoever read an old revision decides anew."""
    incident = pb.Incident(id="ab12", state=pb.Incident.CLOSED, revision=3)
    with pytest.raises(RevisionConflictError, match="revision 3"):
        changed_columns(incident, wanted(Change.CLOSE, 2), "cleo", 7)
    with pytest.raises(GateError, match="stays closed"):
        changed_columns(incident, wanted(Change.CLOSE, 3), "cleo", 7)


@pytest.mark.parametrize(
    "fields",
    [
        {"change": Change.CLOSE, "text": "over"},
        {"change": Change.CLOSE, "resolution": pb.Incident.REAL},
        {"change": Change.ASSIGN, "owner": " "},
        {"change": Change.COMMENT, "text": " "},
        {"change": Change.LINK, "link": pb.IncidentNote(kind="run")},
        {"change": Change.RAISE, "figures_json": "{"},
    ],
)
def test_change_without_what_it_needs_is_refused(fields: dict[str, Any]) -> None:
    """A close without a resolution would say nothing."""
    incident = pb.Incident(id="ab12", state=pb.Incident.OPEN, revision=1)
    with pytest.raises(BadRequestError):
        changed_columns(incident, pb.ChangeIncidentRequest(revision=1, **fields), "cleo", 7)


@pytest.mark.parametrize(
    ("change", "person", "program", "allowed"),
    [
        (Change.CLOSE, True, False, True),
        (Change.CLOSE, False, True, False),
        (Change.RAISE, False, True, True),
        (Change.RAISE, True, False, False),
        (Change.MITIGATE, False, True, True),
        (Change.COMMENT, False, True, True),
    ],
)
def test_only_people_say_what_an_incident_was(
    change: int, person: bool, program: bool, allowed: bool
) -> None:
    """Monitoring raises; closing, acknowledging and assigning are a person's."""
    try:
        check_may_change(change, "x", person=person, program=program)
    except RegistryError:
        assert not allowed
    else:
        assert allowed


@pytest.mark.parametrize("text", ["NaN", '{"a": Infinity}', "[]", "{", '"x"'])
def test_figures_are_an_object_of_finite_numbers(text: str) -> None:
    """A figure that was not measured is left out, and never NaN."""
    with pytest.raises(BadRequestError):
        canonical_figures(text)
    assert canonical_figures("") == "{}"
    assert canonical_figures('{"b": 1.0, "a": 2}') == '{"a":2,"b":1}'
