"""Tests of what notices say, and of their signatures."""

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from project.errors import ProjectError
from project.notice_targets import NoticeTarget, check_secret
from protos import registry_pb2 as pb
from turnout.notices.messages import notice_of, signature_of

TARGET = NoticeTarget(name="ops", url="http://127.0.0.1:1/hook", secret="s3cret")
ALERTS = NoticeTarget(name="am", url="http://127.0.0.1:9093/", format="alertmanager")


def incident(**fields: Any) -> pb.Incident:  # noqa: ANN401  fields of the message
    """Return an open page of churn."""
    given: dict[str, Any] = {
        "id": "5f2a91c0",
        "model": "churn",
        "kind": "quality",
        "severity": pb.Incident.WARNING,
        "state": pb.Incident.OPEN,
        "title": "usage is half missing",
        "figures_json": '{"missing":0.5}',
        "opened_unix_ms": 1_790_000_000_000,
        "revision": 1,
        "sequence": 1_234,
    }
    return pb.Incident(**{**given, **fields})


def test_signature_is_that_of_standard_webhooks() -> None:
    """The vector of the specification's own libraries."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    signature = signature_of(
        secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}'
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_signature_covers_id_time_and_body() -> None:
    """A receiver can refuse a repetition, an old notice and an altered one."""
    notice = notice_of(TARGET, incident(), 1_796_050_000.7)
    assert notice.headers["webhook-id"] == "5f2a91c0-1234"
    assert notice.headers["webhook-timestamp"] == "1796050000"
    signed = b"5f2a91c0-1234.1796050000." + notice.body
    digest = hmac.new(b"s3cret", signed, hashlib.sha256).digest()
    assert notice.headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    later = notice_of(TARGET, incident(), 1_796_050_060.0)
    assert later.headers["webhook-signature"] != notice.headers["webhook-signature"]


def test_webhook_says_what_is_wrong_and_what_to_do() -> None:
    """The kind of the event follows the state."""
    value = json.loads(notice_of(TARGET, incident(), 0.0).body)
    assert value["type"] == "incident.opened"
    assert value["data"]["figures"] == {"missing": 0.5}
    assert value["data"]["next"] == "Next: turnout incidents ack 5f2a91c0"
    closed = incident(state=pb.Incident.CLOSED, revision=4)
    assert json.loads(notice_of(TARGET, closed, 0.0).body)["type"] == "incident.closed"


def test_alert_fires_until_its_incident_is_closed() -> None:
    """A raised incident ends the alert of its lower severity, whose labels are another alert's."""
    notice = notice_of(ALERTS, incident(), 1_790_000_060.0)
    assert notice.url == "http://127.0.0.1:9093/api/v2/alerts"
    review, warning = json.loads(notice.body)
    assert [review["labels"]["severity"], warning["labels"]["severity"]] == ["review", "warning"]
    assert review["endsAt"] < warning["endsAt"]
    assert warning["startsAt"] == "2026-09-21T14:13:20.000+00:00"
    assert warning["annotations"]["summary"] == "usage is half missing"
    (_, ended) = json.loads(
        notice_of(ALERTS, incident(state=pb.Incident.CLOSED), 1_790_000_060.0).body
    )
    assert ended["endsAt"] == "2026-09-21T14:14:20.000+00:00"
    assert ended["labels"] == warning["labels"]


def test_notice_without_a_secret_is_not_signed() -> None:
    """No signature is better than one that everybody can make."""
    target = NoticeTarget(name="ops", url="http://127.0.0.1:1/")
    assert "webhook-signature" not in notice_of(target, incident(), 0.0).headers


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!!"])
def test_secret_that_signs_nothing_is_refused(secret: str) -> None:
    """An empty file of a secret must not lead to notices without signatures."""
    target = NoticeTarget(name="ops", url="http://127.0.0.1:1/", secret=secret)
    with pytest.raises(ProjectError, match=r"notices\.ops"):
        check_secret(target, "environments/prod.toml")
