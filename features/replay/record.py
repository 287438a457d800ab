"""The record of a replay in the registry: that production was served what training would have had.

The registry cannot replay anything itself: journals and the offline store are elsewhere. So an
operator's `turnout features replay --record` writes its result as a finding of kind REPLAY, which
stands in the history, and a policy may ask for a fresh one without a difference. No I/O.
"""

import datetime as dt
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from features.canonical import canonical_json
from features.errors import ReplayRecordError
from host.clock import DAY_MS
from protos import registry_pb2 as pb

REPLAY = "replay"
"""The kind of the finding."""

ROWS_MIN = 300
"""Rows that a replay must have compared. Then fewer than 1 % of all rows differ, with a
probability of 95 %, if none of them did."""

FEATURE = re.compile(r"[A-Za-z0-9_]{1,64}:[A-Za-z0-9_]{1,64}")
SKEWED_NAMED_MAX = 20
"""Features that a report names, the worst first."""

AHEAD_MS_MAX = 3_600_000
"""Served rows may be so much later than the registry's clock says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRecord:
    """The text of a finding of kind REPLAY, as canonical JSON.

    version_digest  the version whose served rows were compared.
    model_contract  the hash of its contract. Rows of other versions with this contract count too.
    from_ms, to_ms  the first and the last instant at which a compared row was served, Unix ms.
    rows            rows that were compared.
    degraded_rows   rows that were left out, because the store had not answered.
    late_values     values that differ because the online store had an older row; no skew.
    skewed_features features that differ for another reason.
    skewed          feature -> rows in which it differs, of the SKEWED_NAMED_MAX worst.
    """

    version_digest: str
    model_contract: str
    from_ms: int
    to_ms: int
    rows: int
    degraded_rows: int
    late_values: int
    skewed_features: int
    skewed: Mapping[str, int]

    def text(self) -> str:
        """Return the record as the text of a finding."""
        return canonical_json(asdict(self)).decode()


def read_record(text: str) -> ReplayRecord:
    """Return the record in the text of a finding. Raises ReplayRecordError."""
    try:
        values = json.loads(text)
        record = ReplayRecord(**values)
    except (ValueError, TypeError, RecursionError) as error:
        raise ReplayRecordError(
            f"a finding of kind {REPLAY!r} has the record of a replay as its text, and this one "
            f"cannot be read ({error}); write it with turnout features replay --record"
        ) from error
    if not (_is_typed(record) and _is_possible(record)):
        raise ReplayRecordError(
            f"the record of a replay contradicts itself: {text[:200]}; write it with turnout "
            "features replay --record"
        )
    return record


def _is_typed(record: ReplayRecord) -> bool:
    simple = all(
        type(getattr(record, field.name)) is field.type
        for field in fields(record)
        if field.type in (str, int)
    )
    return (
        simple
        and isinstance(record.skewed, dict)
        and all(
            FEATURE.fullmatch(name) and type(count) is int for name, count in record.skewed.items()
        )
    )


def _is_possible(record: ReplayRecord) -> bool:
    return (
        record.rows > 0
        and 0 <= record.from_ms <= record.to_ms
        and min(record.degraded_rows, record.late_values) >= 0
        and all(0 < count <= record.rows for count in record.skewed.values())
        and len(record.skewed) == min(record.skewed_features, SKEWED_NAMED_MAX)
    )


def check_record(
    finding: pb.Finding, *, label: str, version_digest: str, model_contract: str, now_ms: int
) -> None:
    """Refuse a finding of kind REPLAY that is not about the registered version that it names.

    label, version_digest, model_contract  those of the registered version.
    now_ms                                 the registry's clock, Unix ms.

    Raises ReplayRecordError.
    """
    record = read_record(finding.text)
    for field, found, registered in (
        ("label", finding.version, label),
        ("version_digest", record.version_digest, version_digest),
        ("model_contract", record.model_contract, model_contract),
    ):
        if found != registered:
            raise ReplayRecordError(
                f"the replay has {field} {found[:16]!r}, and version {label} of {finding.model!r} "
                f"has {registered[:16]!r}; replay the version that is named, by its label"
            )
    if record.to_ms > now_ms + AHEAD_MS_MAX:
        raise ReplayRecordError(
            f"the replayed rows end at {_utc(record.to_ms)}, after the registry's clock "
            f"({_utc(now_ms)}); set the clocks of gateways and registry"
        )


def replay_refusal(
    policy: str, days: float, production: pb.Version, newest: pb.Finding | None, now_ms: int
) -> str:
    """Return why no replay of production is what *policy* asks for; empty if one is.

    days        how old the last replayed row may be.
    production  the version that is in production.
    newest      the newest finding of kind REPLAY about it; None: there is none.
    """
    problem = _problem(days, newest, now_ms)
    if not problem:
        return ""
    return (
        f"policy {policy!r} asks for a replay of version {production.label} of "
        f"{production.model!r}, which is production, without a difference and at most {days:g} "
        f"days old; {problem}. An operator runs: turnout features replay {production.model} "
        "--since 24h --record"
    )


def _problem(days: float, newest: pb.Finding | None, now_ms: int) -> str:
    if newest is None:
        return "there is none"
    named = f"the newest (finding {newest.sequence}, by {newest.who!r})"
    try:
        record = read_record(newest.text)
    except ReplayRecordError:
        return f"{named} is no record of a replay"
    if record.skewed_features:
        worst = ", ".join(f"{name} in {count:,}" for name, count in _worst(record))
        return (
            f"{named} found {record.skewed_features} features that differ, of {record.rows:,} "
            f"rows: {worst}. Mend the cause, so that a later replay finds none"
        )
    if record.rows < ROWS_MIN:
        return f"{named} compared {record.rows:,} rows, and at least {ROWS_MIN} are needed"
    if min(record.to_ms, newest.at_unix_ms) < now_ms - days * DAY_MS:
        return f"the rows of {named} end at {_utc(record.to_ms)}"
    return ""


def _worst(record: ReplayRecord) -> list[tuple[str, int]]:
    return sorted(record.skewed.items(), key=lambda item: (-item[1], item[0]))[:3]


def _utc(unix_ms: int) -> str:
    # A record may have any number; beyond year 9999 there is no date.
    instant = min(unix_ms, 253_402_300_799_000) / 1_000
    return dt.datetime.fromtimestamp(instant, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
