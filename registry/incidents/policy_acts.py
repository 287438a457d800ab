"""What follows when monitoring opens an incident: a finding, and for a retrain a queued run.

It is written in the transaction of the opening, so that an incident without its act, or an act
without its incident, never exists.
"""

import json
from dataclasses import dataclass

from protos import registry_pb2 as pb
from registry.incidents import incident_rows
from registry.runs import run_queue
from registry.storage import controllers, projects
from registry.storage.ledger import LedgerChange
from registry.types import BadRequestError
from registry.watching.policy import Act

HOLD: Act = "hold"
ROLLBACK: Act = "rollback"
RETRAIN: Act = "retrain"
CLEAR = "clear"


ACTED = "acted"
"""Kind of a finding in which the controller says what another finding led to."""


@dataclass(frozen=True, slots=True)
class ActedFinding:
    """What a finding of kind "acted" says."""

    finding: int
    act: str
    text: str
    link_kind: str


def read_acted(text: str) -> ActedFinding:
    """Return what a finding of kind "acted" says. Raises BadRequestError for another text."""
    try:
        value = json.loads(text)
        finding, act = value["finding"], value["act"]
        rollout = str(value.get("rollout", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        value, finding, act, rollout = {}, None, None, ""
    if type(finding) is not int or act not in ("hold", "rollback", "none"):
        raise BadRequestError(
            f"a finding of kind 'acted' has the text {text[:80]!r}; it is JSON with the number of "
            "a finding and an act: hold, rollback or none"
        )
    if act == "none":
        return ActedFinding(finding, act, f"nothing was moved: {value.get('why', '')}", "comment")
    if rollout:
        return ActedFinding(finding, act, rollout, "rollout")
    return ActedFinding(finding, act, f"revision {value.get('revision', 0)}", "deployment")


@dataclass(frozen=True, slots=True)
class WrittenAct:
    """What an act wrote."""

    act: Act
    finding: int
    run: str = ""


def write_act(
    change: LedgerChange, act: Act, incident_id: str, request: pb.OpenIncidentRequest
) -> WrittenAct:
    """Write what *act* means for the incident that is opened.

    A rollback needs a version: without one the rollouts of the model are held.
    """
    if act == ROLLBACK and not request.version:
        act = HOLD
    kind = request.kind if act == "note" else act
    finding = controllers.write_finding(
        change,
        pb.Finding(
            model=request.model,
            version=request.version,
            kind=kind,
            text=f"incident {incident_id} ({request.kind}): {request.title}",
        ),
    )
    run = _queue_retrain(change, incident_id, request) if act == RETRAIN else ""
    return WrittenAct(act, finding.sequence, run)


def _queue_retrain(change: LedgerChange, incident_id: str, request: pb.OpenIncidentRequest) -> str:
    """Queue a run, under the bounds of the model's first schedule if there is one; its id."""
    named = projects.schedule_of_model(change.connection, request.model)
    project, schedule = named or ("", None)
    run = run_queue.queue_run(
        change,
        pb.QueueRunRequest(
            model=request.model,
            setting="" if schedule is None else schedule.setting,
            key=f"incident-{incident_id}",
            cause=f"incident {incident_id} ({request.kind})",
            schedule="" if schedule is None else f"{project}/{schedule.name}",
            due_unix_ms=change.at_unix_ms,
        ),
        schedule,
    )
    return run.id


def clear_hold(change: LedgerChange, incident: pb.Incident) -> None:
    """End the hold of an incident that is closed, unless something else holds as well.

    Another open incident of the same model and version goes on holding, and so does a hold that a
    person wrote after the incident's.
    """
    if incident.act != HOLD or incident_rows.holds_open(change.connection, incident):
        return
    newest = [
        controllers.newest_finding(change.connection, incident.model, incident.version, kind)
        for kind in (HOLD, CLEAR)
    ]
    held, cleared = (0 if finding is None else finding.sequence for finding in newest)
    if held < cleared or incident_rows.find_by_finding(change.connection, held) is None:
        return
    controllers.write_finding(
        change,
        pb.Finding(
            model=incident.model,
            version=incident.version,
            kind=CLEAR,
            text=f"incident {incident.id} was closed by {change.actor}",
        ),
    )
