"""Records of replays: what the registry accepts as one, and which ones satisfy a policy."""

import json
from dataclasses import replace
from typing import Any

import pytest

from features.errors import ReplayRecordError
from features.replay.record import ROWS_MIN, ReplayRecord, check_record, read_record, replay_refusal
from protos import registry_pb2 as pb

DAY_MS = 86_400_000
NOW_MS = 1_800_000_000_000
DIGEST, CONTRACT = "ab" * 32, "cd" * 32
CLEAN = ReplayRecord(
    version_digest=DIGEST,
    model_contract=CONTRACT,
    from_ms=NOW_MS - 2 * DAY_MS,
    to_ms=NOW_MS - DAY_MS,
    rows=5_000,
    degraded_rows=7,
    late_values=20,
    skewed_features=0,
    skewed={},
)
SKEWED = replace(CLEAN, skewed_features=2, skewed={"usage:minutes": 120, "usage:plan": 4_000})
PRODUCTION = pb.Version(model="churn", label="3", digest=DIGEST)


def finding(record: ReplayRecord, *, version: str = "3", at_unix_ms: int = NOW_MS) -> pb.Finding:
    """The finding of *record*, as the registry has it."""
    return pb.Finding(
        sequence=12,
        model="churn",
        version=version,
        kind="replay",
        text=record.text(),
        who="olga",
        at_unix_ms=at_unix_ms,
    )


def test_record_is_read_back() -> None:
    """Its text is one line of JSON that the history keeps."""
    assert read_record(SKEWED.text()) == SKEWED
    assert "\n" not in SKEWED.text()


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 0},
        {"rows": "5000"},
        {"rows": True},
        {"rows": 5_000.5},
        {"from_ms": NOW_MS},
        {"from_ms": -1},
        {"degraded_rows": -1},
        {"skewed_features": 1},
        {"skewed_features": -1},
        {"skewed": {"usage:minutes": 1}},
        {"skewed_features": 1, "skewed": {"usage:minutes": 5_001}},
        {"skewed_features": 1, "skewed": {"\x1b[2Jusage:minutes": 1}},
        {"skewed": []},
        {"skewed": None},
        {"version_digest": None},
        {"comment": "fine"},
    ],
)
def test_record_that_contradicts_itself_is_refused(change: dict[str, Any]) -> None:
    """A finding by hand cannot pass as a replay by an accident of its form."""
    text = json.dumps({**json.loads(CLEAN.text()), **change})
    with pytest.raises(ReplayRecordError, match="features replay --record"):
        read_record(text)


@pytest.mark.parametrize("text", ["", "all is well", "[]", "{}", "[" * 100_000])
def test_text_that_is_no_record_is_refused(text: str) -> None:
    """It says with which command a record is written."""
    with pytest.raises(ReplayRecordError, match="features replay --record"):
        read_record(text)


def test_record_is_of_the_version_that_it_names() -> None:
    """Label, digest and contract are those of the registered version; no row is of the future."""
    registered = {
        "label": "3",
        "version_digest": DIGEST,
        "model_contract": CONTRACT,
        "now_ms": NOW_MS,
    }

    def check(found: pb.Finding) -> None:
        check_record(found, **registered)  # type: ignore[arg-type]

    check(finding(CLEAN))
    with pytest.raises(ReplayRecordError, match="the replay has version_digest 'eeee"):
        check(finding(replace(CLEAN, version_digest="ee" * 32)))
    with pytest.raises(ReplayRecordError, match="the replay has model_contract 'eeee"):
        check(finding(replace(CLEAN, model_contract="ee" * 32)))
    with pytest.raises(ReplayRecordError, match="the replay has label 'abab"):
        check(finding(CLEAN, version=DIGEST))
    with pytest.raises(ReplayRecordError, match="after the registry's clock"):
        check(finding(replace(CLEAN, to_ms=NOW_MS + 2 * DAY_MS)))


@pytest.mark.parametrize(
    ("newest", "days", "why"),
    [
        (None, 7.0, "there is none"),
        (finding(SKEWED), 7.0, "found 2 features that differ, of 5,000 rows: usage:plan in 4,000"),
        (finding(replace(CLEAN, rows=ROWS_MIN - 1)), 7.0, "compared 299 rows, and at least 300"),
        (finding(CLEAN), 0.99, r"finding 12, by 'olga'\) end at 2027-01-14"),
        (finding(CLEAN, at_unix_ms=NOW_MS - 8 * DAY_MS), 7.0, "end at"),
        (pb.Finding(kind="replay", text="clean, believe me"), 7.0, "is no record of a replay"),
    ],
)
def test_policy_is_not_satisfied_by(newest: pb.Finding | None, days: float, why: str) -> None:
    """The refusal names the version, the problem and the command."""
    with pytest.raises(ValueError, match=why) as caught:
        raise ValueError(replay_refusal("careful", days, PRODUCTION, newest, NOW_MS))
    assert "policy 'careful' asks for a replay of version 3 of 'churn'" in str(caught.value)
    assert "turnout features replay churn --since 24h --record" in str(caught.value)


@pytest.mark.parametrize("days", [1.0, 7.0])
def test_policy_is_satisfied_by_a_fresh_replay_without_skew(days: float) -> None:
    """Late values are no skew, and the last row may be exactly as old as the policy says."""
    assert replay_refusal("careful", days, PRODUCTION, finding(CLEAN), NOW_MS) == ""
