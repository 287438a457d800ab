"""Looks at each day that is over, once for each version in service and each kind of look.

Days are taken in order, also after an absence of a week. What was stored is not looked at again, so
the runner may be killed at any moment. A look that fails is tried again; a look that fails again
and again leaves its day out, and the log says so, because other days and versions must not wait.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from host.clock import DAY_S
from monitoring.decisions.day_rows import DayRows
from monitoring.errors import MonitoringStoreError
from monitoring.looks.day_looks import DayLook, DayOfVersion, SealedFacts
from monitoring.looks.person_looks import PersonCounter
from monitoring.looks.uplift_look import days_after_service
from monitoring.store.look_store import LookOutcome, LookStore
from monitoring.store.monitoring_store import MonitoringStore
from monitoring.store.served_versions import ServedVersion
from protos import monitoring_pb2 as pb
from protos.journal_pb2 import UNSEEN_SHADOW
from registry.watching.policy import MonitoringPolicy

log = logging.getLogger(__name__)

WEEK_DAYS = 7
SUNDAY = 3
"""Unix day modulo 7 of Sundays: Unix day 0 was a Thursday."""
READERS_WAIT_S = 6 * 3_600
"""After midnight a day waits so long for journal readers that have not read its end."""
READER_FORGOTTEN_S = 7 * DAY_S
"""A reader that was silent for so long is not waited for."""
FIRST_DAYS_MAX = 60
"""The first look ever goes back so many days at most: a wrong clock may have counted rows of 1970,
and a store may be older than its first look."""
PERSONS = "persons"
"""Name of the look that counts persons, which only has a position."""
DAYS = "days"
"""Name under which the newest day of all versions is stored."""
FAILURES_MAX = 3
Version = tuple[str, str]
"""Model and version label."""


@dataclass(frozen=True, slots=True)
class KnownVersions:
    """What the registry says of the versions of a day."""

    facts: Mapping[Version, SealedFacts]
    """A version that is missing here cannot be read, and is not looked at."""
    policies: Mapping[str, MonitoringPolicy]
    """Model -> its policy. A model without one has the defaults."""


class DayRunner:
    """Looks at days.

    store     counts of versions.
    looks     where outcomes of looks are stored.
    rows      the kept rows, in which persons are counted.
    day_looks  the kinds of look, in the order in which they are made.
    now_s     clock, Unix seconds.
    """

    def __init__(
        self,
        store: MonitoringStore,
        looks: LookStore,
        rows: DayRows,
        day_looks: Sequence[DayLook],
        now_s: Callable[[], float],
    ) -> None:
        self._store = store
        self._looks = looks
        self._rows = rows
        self._day_looks = day_looks
        self._now_s = now_s
        self._stopping = threading.Event()
        self._failures: Counter[tuple[Version, str, int]] = Counter()

    def stop(self) -> None:
        """Begin no further look, so that a process can end between two looks of a day."""
        self._stopping.set()

    def due_day(self) -> int | None:
        """Return the oldest day that is over and was not looked at; None: there is none."""
        done = self._looks.look_state("", "", DAYS).position
        first = self._store.first_day() if done < 0 else done + 1
        if first is not None and done < 0:
            first = max(first, int(self._now_s()) // DAY_S - FIRST_DAYS_MAX)
        if first is None or not self._is_over(first):
            return None
        return first

    def versions_of(
        self, day: int, policies: Mapping[str, MonitoringPolicy]
    ) -> list[ServedVersion]:
        """Return the versions that were in service on a day, and those whose outcomes still come.

        The latter have no rows on the day.
        """
        served = self._store.served_versions(day, day)
        present = {(item.model, item.version) for item in served}
        # The longest time after the last answer, and then that of each model.
        models = {model: days_after_service(policy) for model, policy in policies.items()}
        longest = max(models.values(), default=0)
        for item in self._store.served_versions(day - longest, day - 1):
            days = models.get(item.model, 0)
            if (item.model, item.version) not in present and item.last_day >= day - days:
                served.append(replace(item, rows=0))
        return served

    def look_at(self, day: int, served: Sequence[ServedVersion], known: KnownVersions) -> bool:
        """Look at the versions of a day. False: a look failed or was not begun, and is due again.

        served  what `versions_of` gives of the day.

        Raises MonitoringStoreError when the database does not answer.
        """
        complete = True
        in_service = {(item.model, item.version) for item in served if item.rows}
        for model, versions in _by_model(day, served, known):
            present = [item for item in versions if (model, item.facts.version) in in_service]
            self._count_persons(model, day, present)
            for given in versions:
                for look in self._day_looks:
                    if self._stopping.is_set():
                        return False
                    if given in present or look.after_service:
                        complete = self._look(look, given) and complete
        if complete:
            self._looks.save_look("", "", DAYS, day, LookOutcome())
        return complete

    def _count_persons(self, model: str, day: int, versions: Sequence[DayOfVersion]) -> None:
        """Store the person-looks of the day, and on a Sunday those of the week."""
        # Versions whose persons were not counted before.
        due = [
            given
            for given in versions
            if self._looks.look_state(model, given.facts.version, PERSONS).position < day
        ]
        # Each day is read once, for all versions and for both periods.
        periods = (1, WEEK_DAYS) if day % WEEK_DAYS == SUNDAY else (1,)
        shadows = {given.facts.version: given.shadow for given in due}
        counters = {
            days: {given.facts.version: PersonCounter(given.facts) for given in due}
            for days in periods
        }
        for read_day in range(day - periods[-1] + 1, day + 1) if due else ():
            open_periods = [days for days in periods if read_day > day - days]
            for version, rows in self._rows.day_rows(model, read_day):
                if version in shadows:
                    kept = rows.only((rows.role == UNSEEN_SHADOW) == shadows[version])
                    for days in open_periods:
                        counters[days][version].add(kept)
            for days in open_periods:
                for counter in counters[days].values():
                    counter.end_day()
        # Looks that were stored before are replaced by equal ones.
        for days in periods:
            for version, counter in counters[days].items():
                counted = counter.counted(day, days)
                self._looks.save_person_looks(model, version, counted, shadow=shadows[version])
        for given in due:
            self._looks.save_look(model, given.facts.version, PERSONS, day, LookOutcome())

    def _look(self, look: DayLook, given: DayOfVersion) -> bool:
        """Make one look, unless it was made. False: it failed, and is due again."""
        facts, day = given.facts, given.day
        before = self._looks.look_state(facts.model, facts.version, look.name)
        if before.position >= day:
            return True
        try:
            outcome = look.look(given, before.state)
        except MonitoringStoreError:
            raise
        except Exception:
            failure = (facts.model, facts.version), look.name, day
            self._failures[failure] += 1
            gives_up = self._failures[failure] >= FAILURES_MAX
            log.exception(
                "the look %r at %s %s on day %d failed; it is %s",
                look.name,
                facts.model,
                facts.version,
                day,
                "left out" if gives_up else "tried again",
            )
            if not gives_up:
                return False
            outcome = LookOutcome(state=before.state)
        self._looks.save_look(facts.model, facts.version, look.name, day, outcome)
        return True

    def _is_over(self, day: int) -> bool:
        """Tell whether a day is over, and readers have read its end or were waited for."""
        end = (day + 1) * DAY_S
        now = self._now_s()
        if now < end:
            return False
        if now >= end + READERS_WAIT_S:
            return True
        return all(_has_read(reader, end, now) for reader in self._store.reader_statuses())


def _by_model(
    day: int, served: Sequence[ServedVersion], known: KnownVersions
) -> Iterator[tuple[str, list[DayOfVersion]]]:
    """Yield each model with its versions that can be looked at."""
    by_model: dict[str, list[DayOfVersion]] = {}
    for item in served:
        facts = known.facts.get((item.model, item.version))
        if facts is not None:
            policy = known.policies.get(item.model) or MonitoringPolicy()
            by_model.setdefault(item.model, []).append(
                DayOfVersion(facts=facts, policy=policy, day=day, shadow=item.shadow)
            )
    yield from by_model.items()


def _has_read(reader: pb.ReaderStatus, end: int, now: float) -> bool:
    """Tell whether a reader has read up to *end*, or is gone for good."""
    pushed = reader.pushed_unix_ms / 1_000
    if now - pushed > READER_FORGOTTEN_S:
        return True
    return pushed >= end and (reader.newest_unix_ns >= end * 10**9 or not reader.backlog_bytes)
