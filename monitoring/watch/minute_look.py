"""The look every five minutes: missing values, unknown categories, and minutes without a call.

What is compared:

    values of a feature   with the accepted days of the version, else with its training rows
    flags of rows         with the model's last fourteen whole days; of a new model, its training
    minutes without call  with the same hour of the last 28 days; working days and weekends apart

A model is silent only while gateways send windows. When no window comes at all, nothing is known,
and the look has no data.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from host.clock import DAY_S
from monitoring.cells.cell import CellCounts
from monitoring.jobs.grouping import MonitoringAlarm
from monitoring.jobs.look import LOOK_S, WatchedShare, WatchedVersion, quality_look
from monitoring.looks.day_looks import SealedFacts
from monitoring.looks.drift_look import UNWATCHED
from monitoring.looks.watched_version import (
    FLAGS,
    SILENT_SHARE,
    THURSDAY,
    missing_share,
    share_names_of,
    unknown_share,
)
from monitoring.store.call_minutes import ANY_MODEL, HOUR_MINUTES
from monitoring.store.cell_rows import sum_of_cells
from monitoring.store.look_store import AcceptedReference, LookOutcome, LookStore
from monitoring.store.monitoring_store import MonitoringStore
from monitoring.watch.day_runner import KnownVersions
from monitoring.watch.minute_counts import (
    MINUTE_S,
    ShareHits,
    VersionKey,
    share_hits,
)
from registry.watching.policy import MonitoringPolicy

MINUTES = "minutes"
"""Name of the look at shares of rows."""
SILENCE = "silence"
FLAG_DAYS = 14
SILENCE_DAYS = 28
DAY_HOURS = 24
LOOK_MINUTES = LOOK_S // MINUTE_S
SATURDAY = 5
RELEVANT_SHARE = 0.005
"""A smaller share in the reference counts as this one. With the tolerance of 2, a share of less
than 1 % is nothing to wake anybody for."""
HOST_HITS_SHARE = 0.6
"""A host with this share of all hits ..."""
HOST_RATIO = 2.0
"""... and with so many times the share of the other hosts is where the fault is."""


@dataclass(slots=True)
class _Reference:
    """The shares of a version's reference, which are read once a day."""

    day: int
    shares: tuple[WatchedShare, ...]


class MinuteLook:
    """Looks at what arrived in five minutes."""

    def __init__(self, store: MonitoringStore, looks: LookStore) -> None:
        self._store = store
        self._looks = looks
        self._references: dict[tuple[str, str, int], _Reference] = {}

    def look_at_shares(
        self, arrived: Mapping[VersionKey, ShareHits], known: KnownVersions, unix_s: int
    ) -> None:
        """Look at the shares of rows that arrived in the five minutes up to *unix_s*."""
        # A version has one look in five minutes: of rows that answered calls, if there are any.
        for model, label, shadow in sorted(arrived):
            hits = arrived[model, label, shadow]
            facts = known.facts.get((model, label))
            if facts is None:
                continue
            policy = known.policies.get(model) or MonitoringPolicy()
            watched = WatchedVersion(
                model=model,
                version=label,
                shadow=shadow,
                shares=self._shares(facts, unix_s // DAY_S),
                alarms_a_quarter=policy.budget,
            )
            names = [share.name for share in watched.shares if share.name != SILENT_SHARE]
            counts = {name: hits.total(name) for name in names}
            self._look(watched, MINUTES, counts, unix_s, hits)

    def look_at_silence(
        self, production: Mapping[str, str], known: KnownVersions, unix_s: int
    ) -> None:
        """Look at the minutes of each model in the five minutes up to *unix_s*."""
        end = unix_s // MINUTE_S
        seen = self._bits(ANY_MODEL, range(end - LOOK_MINUTES, end))
        # Without a window of any worker nobody knows whether there were calls.
        if seen < LOOK_MINUTES:
            return
        for model, label in production.items():
            facts = known.facts.get((model, label))
            if facts is None:
                continue
            # Compared with the same hour of earlier days.
            policy = known.policies.get(model) or MonitoringPolicy()
            called = self._bits(model, range(end - LOOK_MINUTES, end))
            silent, minutes = self._usual_silence(model, end)
            share = WatchedShare(
                name=SILENT_SHARE,
                kind="silence",
                reference_hits=silent,
                reference_rows=minutes,
                reference_id="hours of the last 28 days",
                cluster=1,
            )
            watched = WatchedVersion(
                model=model,
                version=label,
                shares=_with_references(facts, {SILENT_SHARE: share}),
                alarms_a_quarter=policy.budget,
            )
            counts = {SILENT_SHARE: (LOOK_MINUTES - called, LOOK_MINUTES)}
            self._look(watched, SILENCE, counts, unix_s, None)

    def _look(
        self,
        watched: WatchedVersion,
        name: str,
        counts: Mapping[str, tuple[int, int]],
        unix_s: int,
        hits: ShareHits | None,
    ) -> None:
        """Make one look, and store it unless it was stored."""
        before = self._looks.look_state(watched.model, watched.version, name)
        position = unix_s // LOOK_S
        if before.position >= position:
            return
        result = quality_look(watched, counts, unix_s, dict(before.state))
        alarms = [_with_host(alarm, hits) for alarm in result.alarms]
        details = {
            alarm: {"hits": counts[alarm.stream][0], "rows": counts[alarm.stream][1]}
            for alarm in alarms
        }
        outcome = LookOutcome(
            alarms=tuple(alarms),
            state={**result.state, UNWATCHED: _unwatched(result.unwatched, counts)},
            details=details,
        )
        self._looks.save_look(watched.model, watched.version, name, position, outcome)

    def _shares(self, facts: SealedFacts, day: int) -> tuple[WatchedShare, ...]:
        """Return the shares of a version with their references, which are read once a day."""
        accepted = self._accepted(facts)
        key = facts.model, facts.version, 0 if accepted is None else accepted.finding
        found = self._references.get(key)
        if found is None or found.day != day:
            known = (*self._feature_shares(facts, accepted), *self._flag_shares(facts, day))
            by_name = {share.name: share for share in known}
            found = self._references[key] = _Reference(day, _with_references(facts, by_name))
        return found.shares

    def _accepted(self, facts: SealedFacts) -> AcceptedReference | None:
        for accepted in self._looks.accepted_references():
            if (accepted.model, accepted.version) == (facts.model, facts.version):
                return accepted
        return None

    def _feature_shares(
        self, facts: SealedFacts, accepted: AcceptedReference | None
    ) -> tuple[WatchedShare, ...]:
        """Return the shares of missing values and unknown categories of each feature."""
        reference, shares = _training_hits(facts), []
        if accepted is not None:
            since, until = accepted.first_day * DAY_HOURS, (accepted.last_day + 1) * DAY_HOURS
            cells = self._store.read_cells(since, until, model=facts.model, version=facts.version)
            reference = _hits_of(sum_of_cells(cells), facts) or reference
        origin = "training" if accepted is None else f"accepted by finding {accepted.finding}"
        for name, (hits, rows) in reference.items():
            shares.append(
                WatchedShare(
                    name=name,
                    kind="quality",
                    reference_hits=_relevant(hits, rows),
                    reference_rows=rows,
                    reference_id=origin,
                    view=facts.views.get(name.partition(" ")[2], ""),
                )
            )
        return tuple(shares)

    def _flag_shares(self, facts: SealedFacts, day: int) -> tuple[WatchedShare, ...]:
        """Return the shares of flagged rows, with the model's last days or its training."""
        since, until = (day - FLAG_DAYS) * DAY_HOURS, day * DAY_HOURS
        total = sum_of_cells(self._store.read_cells(since, until, model=facts.model))
        hits, rows = dict(share_hits(total, None)), total.rows
        monday = day - (day + THURSDAY) % 7
        origin = f"fourteen days of the week of day {monday}"
        # A new model is compared with what its training rows found in the views.
        if not rows:
            hits, rows = _joined_hits(facts)
            origin = "training"
        return tuple(
            WatchedShare(
                name=name,
                kind="quality",
                reference_hits=_relevant(hits[name], rows),
                reference_rows=rows,
                reference_id=origin,
            )
            for name in FLAGS
            if name in hits and rows
        )

    def _bits(self, model: str, minutes: range) -> int:
        """Return how many of some Unix minutes had a call."""
        hours = {minute // HOUR_MINUTES for minute in minutes}
        bits = self._store.call_minutes(model, hours)
        return sum(
            bits.get(minute // HOUR_MINUTES, 0) >> minute % HOUR_MINUTES & 1 for minute in minutes
        )

    def _usual_silence(self, model: str, end: int) -> tuple[int, int]:
        """Return (silent minutes, minutes) of this hour on earlier days of the same kind.

        Minutes in which no worker sent a window are left out, and so are days before the model's
        first call.
        """
        hour = end // HOUR_MINUTES
        weekend = _is_weekend(hour // DAY_HOURS)
        hours = [
            hour - DAY_HOURS * days
            for days in range(1, SILENCE_DAYS + 1)
            if _is_weekend(hour // DAY_HOURS - days) == weekend
        ]
        called = self._store.call_minutes(model, hours)
        seen = self._store.call_minutes(ANY_MODEL, hours)
        first = min(called, default=hour)
        minutes = silent = 0
        for item in hours:
            if item >= first:
                minutes += seen.get(item, 0).bit_count()
                silent += (seen.get(item, 0) & ~called.get(item, 0)).bit_count()
        return silent, minutes


def _with_references(
    facts: SealedFacts, known: Mapping[str, WatchedShare]
) -> tuple[WatchedShare, ...]:
    """Return all shares of a version, so that each look spends the same budget.

    Shares that are not among the *known* ones have no reference, and so no detector in this look.
    """
    return tuple(known.get(share.name, share) for share in share_names_of(facts))


def _relevant(hits: int, rows: int) -> int:
    return max(hits, round(RELEVANT_SHARE * rows))


def _unwatched(reasons: Mapping[str, str], counts: Mapping[str, object]) -> dict[str, str]:
    """Return why shares of this look have no detector."""
    return {name: reason for name, reason in reasons.items() if name in counts}


def _is_weekend(unix_day: int) -> bool:
    return (unix_day + THURSDAY) % 7 >= SATURDAY


def _training_hits(facts: SealedFacts) -> dict[str, tuple[int, int]]:
    """Return share -> (hits, rows) of the rows that the version was fitted on.

    Its dictionaries were made from these rows, so none of their categories is unknown.
    """
    reference = {}
    for bins, feature in zip(facts.bins.features, facts.reference["features"], strict=True):
        missing = int(feature.get("missing", 0))
        rows = sum(feature.get("counts", ())) + missing
        reference[missing_share(bins.name)] = missing, rows
        if bins.categories:
            reference[unknown_share(bins.name)] = 0, rows
    return reference


def _joined_hits(facts: SealedFacts) -> tuple[dict[str, int], int]:
    """Return flag -> hits, and rows, of the rows of training, as the card says of each view.

    A row that lacks one view or the other may be another row or the same, so shares of views add up
    to the most that both can be.
    """
    views = facts.card.get("joined")
    rows = facts.card.get("data", {}).get("rows", 0)
    if not isinstance(views, Mapping) or not isinstance(rows, int):
        return {}, 0
    shares = {
        flag: min(1.0, sum(float(view.get(share, 0.0)) for view in views.values()))
        for flag, share in zip(FLAGS, ("missing", "stale", "defaulted"), strict=False)
    }
    return {flag: round(share * rows) for flag, share in shares.items()}, rows


def _hits_of(total: CellCounts, facts: SealedFacts) -> dict[str, tuple[int, int]]:
    """Return share -> (hits, rows) of counted rows; empty without rows."""
    if not total.rows:
        return {}
    return {
        name: (hits, total.rows)
        for name, hits in share_hits(total, facts.bins)
        if name not in FLAGS
    }


def _with_host(alarm: MonitoringAlarm, hits: ShareHits | None) -> MonitoringAlarm:
    """Return the alarm with the host that the fault is on, if it is one of several."""
    if hits is None or len(hits.rows) < 2:
        return alarm
    of_hosts: Counter[str] = hits.hits[alarm.stream]
    ((host, most),) = of_hosts.most_common(1) or [("", 0)]
    others = hits.rows.total() - hits.rows[host]
    share = most / max(1, hits.rows[host])
    other_share = (of_hosts.total() - most) / max(1, others)
    if most > HOST_HITS_SHARE * of_hosts.total() and share > HOST_RATIO * other_share:
        return replace(alarm, host=host)
    return alarm
