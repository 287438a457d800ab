"""Attributes outcomes that were reported by entity and time: each gets the prediction it is about.

An outcome belongs to a kept answer of its model about the same entities that was given before the
event, by at most the horizon of the outcome: to the newest such answer, or to the oldest where the
policy says `attribution = "first"`. From then on the outcome counts as if its prediction id had
been reported. An outcome with no answer a day after its report counts as one without a prediction.

A search reads the kept rows of all days of the horizon, so it costs as much for one outcome as for
thousands. After a search for few outcomes their model rests, and its next ones are searched for
together.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from host.clock import DAY_MS
from monitoring.api.outcome_segments import OutcomeSegments
from monitoring.api.reader_policies import ReaderPolicies
from monitoring.cells.outcome_columns import SKEW_MS
from monitoring.cells.segments import SegmentRules
from monitoring.decisions.answered_rows import AnsweredRow, AnsweredRows, choose_answers
from monitoring.errors import UnreadableDecisionsError
from monitoring.store.monitoring_store import MonitoringStore
from monitoring.store.waiting_outcomes import ARRIVAL_MS, WaitingOutcome
from protos import monitoring_pb2 as pb
from registry.watching.policy import MonitoringPolicy

PAGE = 5_000
"""Outcomes of one model that are attributed at once."""
AGAIN_MS = 6 * 3_600_000
"""Time until the next search for an answer that was not found."""
GIVEN_UP_MS = DAY_MS
"""Time after a report at which it is given up: by then the readers of all gateways have pushed
their rows, or the rows are lost."""
LOOKED_AT = 10 * PAGE
"""The longest due outcomes among which the model of the next page is chosen."""
SEARCH_SHARE = 0.02
"""Share of the time that searches for less than a page take, of all models together."""
REST_S_MAX = 3_600.0
"""The longest rest of a model, however long its searches take."""


class SearchRests:
    """Which models rest after a search, and until when.

    Each search is followed by a rest of its time / SEARCH_SHARE. The rest begins where the last
    one of any model ends, so all searches together take no more than this share, except that no
    rest is longer than REST_S_MAX.
    """

    def __init__(self) -> None:
        self._until_s: dict[str, float] = {}
        self._last_s = 0.0
        """End of the last rest."""

    def add(self, model: str, began_s: float, ended_s: float) -> None:
        """Let a model rest after a search, Unix seconds."""
        rest_s = max(ended_s - began_s, 0.0) / SEARCH_SHARE
        self._last_s = min(max(self._last_s, ended_s) + rest_s, ended_s + REST_S_MAX)
        self._until_s[model] = self._last_s

    def rests(self, model: str, now_s: float) -> bool:
        """Whether a model rests now."""
        # A longer one was noted before the clock was put back.
        return 0.0 < self._until_s.get(model, 0.0) - now_s <= REST_S_MAX


class EntityOutcomes:
    """Looks for the answers that the outcomes waiting in the store are about.

    rows      the kept answers.
    segments  gives outcomes the segments of their predictions.
    policies  say how long before the event an answer may be.
    now_s     clock, Unix seconds.
    """

    def __init__(
        self,
        store: MonitoringStore,
        rows: AnsweredRows,
        segments: OutcomeSegments,
        policies: ReaderPolicies,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._rows = rows
        self._segments = segments
        self._policies = policies
        self._now_s = now_s
        self._rests = SearchRests()

    def attribute(self) -> int:
        """Look for the answers of one page of outcomes; return how many outcomes there were.

        0 before the policies were read, and while all models with less than a page rest. Raises
        MonitoringStoreError, and UnreadableDecisionsError; then the page waits on, and those of
        other models come first.
        """
        # The outcomes that are looked for now.
        began_s = self._now_s()
        now_ms = int(began_s * 1e3)
        due = self._next_page(began_s) if self._policies.ready else []
        if not due:
            return 0
        # Find the answers, and leave out versions of which nothing is known.
        model = due[0].model
        digests = self._store.version_digests(model)
        try:
            answers = list(self._answers(model, due))
        except UnreadableDecisionsError:
            ids = [item.id for item in due]
            self._store.settle_outcomes([], [], put_off=ids, due_unix_ms=now_ms + ARRIVAL_MS)
            raise
        finally:
            if len(due) < PAGE:
                self._rests.add(model, began_s, self._now_s())
        found = {
            item.id: answer.outcome_event(item.report(), digests[answer.version])
            for item, answer in answers
            if answer.version in digests
        }
        # Count outcomes with an answer, and those for which the search is given up.
        given_up = [
            item
            for item in due
            if item.id not in found and now_ms >= item.received_unix_ms + GIVEN_UP_MS
        ]
        batch = pb.CellBatch(outcomes=found.values())
        self._segments.fill(batch, SegmentRules(self._policies.segments))
        settled = dict.fromkeys([*found, *(item.id for item in given_up)])
        self._store.settle_outcomes(
            [*batch.outcomes, *(item.given_up(now_ms) for item in given_up)],
            list(settled),
            put_off=[item.id for item in due if item.id not in settled],
            due_unix_ms=now_ms + AGAIN_MS,
        )
        return len(due)

    def _next_page(self, now_s: float) -> list[WaitingOutcome]:
        """Return the longest due outcomes of one model: a page of them, or of one at rest none."""
        now_ms = int(now_s * 1e3)
        for model, number in self._store.due_models(now_ms, LOOKED_AT).items():
            if number >= PAGE or not self._rests.rests(model, now_s):
                return self._store.due_outcomes(model, now_ms, PAGE)
        return []

    def _answers(
        self, model: str, due: Sequence[WaitingOutcome]
    ) -> Iterable[tuple[WaitingOutcome, AnsweredRow]]:
        """Yield each outcome that has an answer, with the answer."""
        policy = self._policies.policies.get(model) or MonitoringPolicy()
        by_name: dict[str, list[WaitingOutcome]] = defaultdict(list)
        for item in due:
            by_name[item.name].append(item)
        for name, items in by_name.items():
            # An outcome without a policy may be about any kept answer before the event.
            outcome = policy.outcomes.get(name)
            window_ms = self._policies.current.days * DAY_MS
            if outcome is not None:
                window_ms = outcome.horizon_s * 1_000
            events = [item.event_unix_ms for item in items]
            answers = self._rows.of_entities(
                model,
                {item.keys for item in items},
                (min(events) - window_ms) // DAY_MS,
                (max(events) + SKEW_MS) // DAY_MS,
            )
            chosen = choose_answers(
                answers,
                [item.keys for item in items],
                # Clocks of callers and gateways differ a little.
                np.array(events, dtype=np.int64) + SKEW_MS,
                window_ms=window_ms + SKEW_MS,
                rule="last" if outcome is None else outcome.attribution,
            )
            for item, answer in zip(items, chosen, strict=True):
                if answer is not None:
                    yield item, answer
