"""When customers have the outcome of a model, and the reports about their predictions.

An outcome is an event of a customer, who may have been scored many times before. Each customer has
a clock that runs by the probability of the newest call. When it strikes, every prediction within
the horizon before has the outcome. So the outcomes of a customer's predictions are one fact, and
each prediction still has the outcome with the probability of its day.
"""

from collections import deque
from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from benchmarks.year.served_days import DAY_MS, ServedDay
from benchmarks.year.year_people import YearPeople
from benchmarks.year.year_versions import YearVersion
from journal.prediction_id import hash_model_name
from protos import monitoring_pb2 as pb
from protos.journal_pb2 import UNSEEN_SHADOW

ACTED = "acted"
"""The outcome by which callers report that somebody acted."""


class OutcomeClock:
    """The outcomes of the customers of one model."""

    def __init__(self, people: YearPeople, seed: int) -> None:
        self._people = people
        self._rng = np.random.default_rng([seed, hash_model_name(people.model.name) % 2**32])
        customers = people.model.customers
        self._left = self._rng.exponential(size=customers)
        """(K,) what is left on each clock."""
        self._speed = np.zeros(customers)
        """(K,) by how much each clock runs in a day."""
        self._key = people.keys.copy()
        self._recent: deque[tuple[ServedDay, NDArray[np.bool_]]] = deque(
            maxlen=people.model.horizon_days
        )
        """The days whose predictions are open, with what was reported."""

    def pass_day(self, day: int, served: ServedDay) -> Iterator[pb.OutcomeEvent]:
        """Let the clocks run for a Unix day with these calls; yield the reports that follow."""
        people, model = served.people, self._people.model
        acted = self._acted(served)
        # New customers have new clocks. Those who call run by the probability of the call.
        changed = np.flatnonzero(self._key != self._people.keys)
        self._key[changed] = self._people.keys[changed]
        self._left[changed] = self._rng.exponential(size=len(changed))
        self._speed[changed] = 0.0
        adds = served.effects.acting_adds
        adds = model.acting_adds if adds is None else adds
        probability = np.clip(people.probability + adds * acted, 0.0, 0.99)
        self._speed[people.person] = -np.log1p(-probability) / model.horizon_days
        self._recent.append((served, np.zeros(len(people.person), dtype=np.bool_)))
        # Whose clock strikes on this day, and all that was predicted about them.
        self._left -= self._speed
        struck = np.flatnonzero(self._left <= 0.0)
        self._left[struck] = self._rng.exponential(size=len(struck))
        for past, reported in self._recent:
            rows = np.isin(past.people.key_hash, self._people.keys[struck]) & ~reported
            np.logical_or(reported, rows, out=reported)
            if not past.effects.constant:
                yield from self._reports(day, past, rows)
        yield from self._reports_of_acts(day, served, acted)

    def _acted(self, served: ServedDay) -> NDArray[np.bool_]:
        """Return on whom of the (N,) calls somebody acts: those with the highest scores."""
        people, part = served.people, self._people.model.acted
        if not part or not len(people.person):
            return np.zeros(len(people.person), dtype=np.bool_)
        scores = served.scores[served.versions.production.label]
        chosen = scores >= np.quantile(scores, 1 - part)
        # Some act on the holdout, too, when it is broken.
        drawn = self._rng.random(len(scores)) < served.effects.acts_on_holdout
        return np.asarray(chosen & (~people.holdout | drawn), dtype=np.bool_)

    def _reports(
        self, day: int, served: ServedDay, rows: NDArray[np.bool_]
    ) -> Iterator[pb.OutcomeEvent]:
        """Yield the reports about calls of a past day, also those that come twice or are wrong."""
        rng, effects = self._rng, served.effects
        for event in _events(served, rows):
            event.name = self._people.model.outcome
            yield received(event, day + effects.late_days, rng)
            if rng.random() < effects.doubled:
                yield received(event, day + 1 + effects.late_days, rng)
            if rng.random() < effects.corrected:
                event.value = 0.0
                yield received(event, day + 3 + effects.late_days, rng)

    def _reports_of_acts(
        self, day: int, served: ServedDay, acted: NDArray[np.bool_]
    ) -> Iterator[pb.OutcomeEvent]:
        for event in _events(served, acted):
            event.name = ACTED
            yield received(event, day, self._rng)


def received(event: pb.OutcomeEvent, day: int, rng: np.random.Generator) -> pb.OutcomeEvent:
    """Return the report of an outcome that happened on a Unix day; it comes on the next day."""
    report = pb.OutcomeEvent()
    report.CopyFrom(event)
    report.received_unix_ms = (day + 1) * DAY_MS + int(rng.integers(DAY_MS))
    report.event_unix_ms = report.received_unix_ms
    return report


def _events(served: ServedDay, rows: NDArray[np.bool_]) -> Iterator[pb.OutcomeEvent]:
    """Yield what a report of each of the (N,) *rows* says of its prediction."""
    for version, scored, role in served.scored():
        if role == UNSEEN_SHADOW:
            continue
        for row in np.flatnonzero(rows & scored).tolist():
            yield _event(served, version, role, row)


def _event(served: ServedDay, version: YearVersion, role: int, row: int) -> pb.OutcomeEvent:
    people = served.people
    return pb.OutcomeEvent(
        id_digest=blake2b(served.ids[row].tobytes(), digest_size=16).digest(),
        model_hash=hash_model_name(version.model.name),
        version_digest=version.digest8,
        role=role,
        holdout=bool(people.holdout[row]),
        predicted_unix_ms=int(people.at_unix_ns[row]) // 10**6,
        key_hash=int(people.key_hash[row]),
        score=float(served.scores[version.label][row]),
        value=1.0,
    )
