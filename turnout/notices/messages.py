"""What a notice says, in two formats, and how it is signed. No I/O.

Webhook: the signature is that of Standard Webhooks 1.0 (standardwebhooks.com). A receiver computes
HMAC-SHA256 of "{webhook-id}.{webhook-timestamp}.{body}" with the secret, compares it with the
base64 text after "v1,", refuses timestamps that are more than five minutes away, and takes a
webhook-id that it has had for a repetition: notices are sent at least once.

    webhook-id: 5f2a91c0-1234                 the incident and the history entry of the change
    webhook-timestamp: 1796050000             Unix seconds of this attempt
    webhook-signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=

Alertmanager: a list of alerts for POST /api/v2/alerts. An alert fires until the incident is closed.
"""

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from project.notice_targets import SECRET_PREFIX, NoticeTarget
from protos import registry_pb2 as pb
from turnout.views.incidents import incident_hint, incident_json, severity_word, state_word

FIRING_DAYS = 7
"""An alert of an open incident fires for this long after the last notice of it."""
ALERTS_PATH = "/api/v2/alerts"
TEST_INCIDENT = pb.Incident(
    id="00000000",
    model="test",
    kind="manual",
    cause="test",
    severity=pb.Incident.REVIEW,
    state=pb.Incident.OPEN,
    title="This is a test notice of Turnout; nothing is wrong",
    act="note",
    revision=1,
)


@dataclass(frozen=True, slots=True)
class Notice:
    """A POST: where it goes, and its headers and body."""

    url: str
    headers: dict[str, str]
    body: bytes


def notice_of(target: NoticeTarget, incident: pb.Incident, now_s: float) -> Notice:
    """Return the notice of an incident as it is now.

    target  with references replaced.
    now_s   Unix time of this attempt.
    """
    value = _alerts(incident, now_s) if target.format == "alertmanager" else _event(incident, now_s)
    url = target.url.rstrip("/") + ALERTS_PATH if target.format == "alertmanager" else target.url
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    notice_id, timestamp = f"{incident.id}-{incident.sequence}", str(int(now_s))
    headers = {
        "content-type": "application/json",
        "webhook-id": notice_id,
        "webhook-timestamp": timestamp,
    }
    if target.secret:
        headers["webhook-signature"] = signature_of(target.secret, notice_id, timestamp, body)
    return Notice(url, headers, body)


def signature_of(secret: str, notice_id: str, timestamp: str, body: bytes) -> str:
    """Return the text of the header webhook-signature."""
    key = (
        base64.b64decode(secret.removeprefix(SECRET_PREFIX))
        if secret.startswith(SECRET_PREFIX)
        else secret.encode()
    )
    digest = hmac.digest(key, f"{notice_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def _event(incident: pb.Incident, now_s: float) -> dict[str, Any]:
    kind = "incident.opened" if incident.revision == 1 else "incident.changed"
    if incident.state == pb.Incident.CLOSED:
        kind = "incident.closed"
    if incident.id == TEST_INCIDENT.id:
        kind = "test"
    return {
        "type": kind,
        "timestamp": _rfc3339(now_s),
        "data": {**incident_json(incident), "next": incident_hint(incident)},
    }


def _alerts(incident: pb.Incident, now_s: float) -> list[dict[str, Any]]:
    """Return the alert, and for each lower severity that it may have had an alert that has ended.

    The labels of an alert are its identity, so a raised incident is another alert.
    """
    closed = incident.state == pb.Incident.CLOSED or incident.id == TEST_INCIDENT.id
    end_s = now_s if closed else now_s + timedelta(days=FIRING_DAYS).total_seconds()
    labels = {
        "alertname": "TurnoutIncident",
        "incident": incident.id,
        "model": incident.model,
        "version": incident.version,
        "kind": incident.kind,
    }
    annotations = {
        "summary": incident.title,
        "description": f"{state_word(incident)}; owner {incident.owner or 'nobody'}; "
        f"{incident_hint(incident)}",
    }
    starts_s = (incident.opened_unix_ms or now_s * 1_000) / 1_000
    return [
        {
            "labels": {**labels, "severity": severity_word(pb.Incident(severity=severity))},
            "annotations": annotations,
            "startsAt": _rfc3339(starts_s),
            "endsAt": _rfc3339(end_s if severity == incident.severity else now_s),
        }
        for severity in (pb.Incident.REVIEW, pb.Incident.WARNING, pb.Incident.PAGE)
        if severity <= incident.severity
    ]


def _rfc3339(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")
