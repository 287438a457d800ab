"""Incidents as values: what may follow what, and what a change writes. No I/O.

    OPEN        --acknowledge--> ACKNOWLEDGED
    OPEN, ACKNOWLEDGED --mitigate--> MITIGATED
    OPEN, ACKNOWLEDGED, MITIGATED --close--> CLOSED

CLOSED stays: the same cause then opens another incident. Changes of state, owner, severity and
figures are written by compare-and-set on the revision. Comments and links add, so they need none.
"""

import json
import re
from typing import Any
from urllib.parse import urlsplit

from features.canonical import canonical_json
from protos import registry_pb2 as pb
from registry.types import (
    MODEL_NAME,
    BadRequestError,
    GateError,
    NotAllowedError,
    RevisionConflictError,
)
from registry.watching.policy import KINDS

FIGURES = "figures"
"""Kind of the findings in which monitoring writes what a model is worth."""
MANUAL = "manual"
"""Kind of an incident that a person opens without one of KINDS."""
INCIDENT_ID = re.compile(r"[0-9a-f]{4,32}")
URL = "url"
LINK_KINDS = ("rollout", "deployment", "run", "finding", "version", "incident", URL)
"""What a link may lead to."""
LINK_TEXT_MAX = 128

Change = pb.ChangeIncidentRequest
NOTED_AS = {
    Change.COMMENT: "comment",
    Change.ACKNOWLEDGE: "acknowledge",
    Change.MITIGATE: "mitigate",
    Change.CLOSE: "close",
    Change.ASSIGN: "assign",
}
"""Change -> the kind of the note that its text becomes."""
PEOPLES_CHANGES = frozenset({Change.ASSIGN, Change.ACKNOWLEDGE, Change.CLOSE})
"""Changes that no program makes: a person says that it is seen, and what it was."""
MONITORINGS_CHANGES = frozenset({Change.RAISE})
OPEN_STATES = (pb.Incident.OPEN, pb.Incident.ACKNOWLEDGED, pb.Incident.MITIGATED)


def check_opening(request: pb.OpenIncidentRequest) -> None:
    """Raise BadRequestError for an incident that cannot be opened."""
    if not MODEL_NAME.fullmatch(request.model):
        raise BadRequestError(
            f"model {request.model[:80]!r} does not match {MODEL_NAME.pattern}; an incident is "
            "about a model"
        )
    if request.kind not in KINDS and (request.automatic or request.kind != MANUAL):
        raise BadRequestError(
            f"kind {request.kind[:80]!r} is not known; it is one of {', '.join(KINDS)}, or "
            f"{MANUAL} when a person opens it"
        )
    for name, text in (("cause", request.cause), ("title", request.title)):
        if not text.strip():
            raise BadRequestError(
                f"{name} is empty; the cause makes two alarms one incident, and the title tells "
                "people what is wrong"
            )
    if request.severity not in (pb.Incident.REVIEW, pb.Incident.WARNING, pb.Incident.PAGE):
        raise BadRequestError(
            f"severity {request.severity} is none of REVIEW, WARNING and PAGE; say how soon a "
            "person must look"
        )
    if request.since_unix_ms < 0 or len(request.version) > 64:
        raise BadRequestError("since_unix_ms is negative, or the version has over 64 characters")
    for link in request.links:
        check_link(link)


def canonical_figures(text: str) -> str:
    """Return figures as canonical JSON; "{}" for an empty text. Raises BadRequestError."""
    try:
        value = json.loads(text or "{}", parse_constant=_refuse_constant)
        if not isinstance(value, dict):
            raise BadRequestError('figures_json is no JSON object; send {"name": number, ...}')
        return canonical_json(value).decode()
    except (ValueError, TypeError, RecursionError) as error:
        raise BadRequestError(
            f"figures_json cannot be read ({error}); it is an object without NaN and infinite "
            "numbers, because a figure that was not measured is left out"
        ) from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def check_link(link: pb.IncidentNote) -> None:
    """Raise BadRequestError for a link that leads nowhere."""
    if link.kind not in LINK_KINDS or not link.text.strip():
        raise BadRequestError(
            f"a link of kind {link.kind[:40]!r} to {link.text[:80]!r}; the kind is one of "
            f"{', '.join(LINK_KINDS)}, and the text names which one"
        )
    if link.kind == URL and not is_web_address(link.text):
        raise BadRequestError(
            f"a link to {link.text[:80]!r}, which is no address of a page; a url begins with "
            "http:// or https:// and names a host"
        )


def is_web_address(text: str) -> bool:
    """Return whether a text is an http or https address with a host, which a browser may open."""
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False
    return is_address and not any(letter.isspace() for letter in text)


def changed_columns(
    incident: pb.Incident, request: pb.ChangeIncidentRequest, actor: str, at_unix_ms: int
) -> dict[str, Any]:
    """Return the columns that a change writes, without the sequence; empty for notes.

    Raises RevisionConflictError when the incident was changed since it was read, GateError for a
    change that its state does not allow, BadRequestError.
    """
    # A comment or a link adds, in every state.
    kind = request.change
    if kind in (Change.COMMENT, Change.LINK):
        if kind == Change.LINK:
            check_link(request.link)
        elif not request.text.strip():
            raise BadRequestError("the comment is empty")
        return {}
    # Everything else replaces what was read.
    if request.revision != incident.revision:
        raise RevisionConflictError(
            f"incident {incident.id} is at revision {incident.revision} "
            f"({incident_state(incident.state)}), and this change was made from revision "
            f"{request.revision}; read it again and decide anew"
        )
    if incident.state == pb.Incident.CLOSED:
        raise GateError(
            f"incident {incident.id} was closed by {incident.closed_by!r}, and stays closed; its "
            "cause opens another incident when it is seen again"
        )
    columns = _columns_of(incident, request, actor, at_unix_ms)
    return {**columns, "revision": incident.revision + 1}


def _columns_of(
    incident: pb.Incident, request: pb.ChangeIncidentRequest, actor: str, at_unix_ms: int
) -> dict[str, Any]:
    # Its kind says what a change may write.
    kind = request.change
    if kind == Change.ASSIGN:
        if not request.owner.strip() or len(request.owner) > 64:
            raise BadRequestError("the owner is empty or has over 64 characters; name a person")
        return {"owner": request.owner}
    # A person has seen it.
    if kind == Change.ACKNOWLEDGE:
        if incident.state != pb.Incident.OPEN:
            raise GateError(
                f"incident {incident.id} is {incident_state(incident.state)} already, "
                f"acknowledged by {incident.acknowledged_by or 'nobody'!r}"
            )
        return {
            "state": int(pb.Incident.ACKNOWLEDGED),
            "owner": incident.owner or actor,
            "acknowledged_by": actor,
            "acknowledged_unix_ms": at_unix_ms,
        }
    if kind == Change.MITIGATE:
        if incident.state == pb.Incident.MITIGATED:
            raise GateError(
                f"incident {incident.id} is mitigated already; close it when it is over"
            )
        return {
            "state": int(pb.Incident.MITIGATED),
            "mitigated_by": actor,
            "mitigated_unix_ms": at_unix_ms,
        }
    # What it was is known.
    if kind == Change.CLOSE:
        if not request.resolution or not request.text.strip():
            raise BadRequestError(
                "an incident is closed as real, false alarm or expected, and with a reason"
            )
        return {
            "state": int(pb.Incident.CLOSED),
            "closed_by": actor,
            "closed_unix_ms": at_unix_ms,
            "resolution": int(request.resolution),
        }
    if kind == Change.RAISE:
        return raised_columns(incident, request.severity, request.figures_json, request.title)
    raise BadRequestError(f"change {kind} is not known to this release")


def raised_columns(
    incident: pb.Incident, severity: "pb.Incident.Severity", figures_json: str, title: str
) -> dict[str, Any]:
    """Return what a raised incident gets: the higher severity, and newer figures if there are."""
    columns: dict[str, Any] = {
        "severity": max(int(severity), int(incident.severity)),
        "raised": incident.raised + 1,
    }
    if figures_json:
        columns["figures"] = canonical_figures(figures_json)
    if title.strip():
        columns["title"] = title
    return columns


def check_may_change(change: int, actor: str, *, person: bool, program: bool) -> None:
    """Raise NotAllowedError unless a caller with these roles may make this change.

    person   is an author, an approver or an operator.
    program  is monitoring or a controller.
    """
    if (change in PEOPLES_CHANGES and not person) or (
        change in MONITORINGS_CHANGES and not program
    ):
        who = "a person" if change in PEOPLES_CHANGES else "monitoring or the controller"
        raise NotAllowedError(
            f"{Change.Change.Name(change)} of an incident is for {who}; {actor!r} is neither "
            "author, approver nor operator"
            if change in PEOPLES_CHANGES
            else f"{Change.Change.Name(change)} of an incident is for {who}, not for {actor!r}"
        )


def incident_state(state: int) -> str:
    """Return the word of a state, such as "open"."""
    return pb.Incident.State.Name(state).lower()
