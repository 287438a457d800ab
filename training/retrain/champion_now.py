"""Judges a champion on the newest labels before anything is fitted, to see if it has decayed.

The labels are newer than all that the champion was trained on or judged by, so no version of the
model has seen them. The newest WINDOW_ROWS of them count. What the champion was worth when it was
registered stands in its card. Both numbers have an interval, and so has their difference.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry import scoring
from registry.bundle import Bundle
from registry.types import ScoringError
from stats.figure import ends_of_difference
from training.errors import GateFailedError, JoinError, LabelsError
from training.evaluation.metrics import Estimate
from training.joined import RowSource, joined_rows
from training.labelled_rows import LabelledRows
from training.recipe import Recipe
from training.tasks.comparison import require_comparable
from training.tasks.table import TASKS

WINDOW_ROWS = 5_000
WINDOW_ROWS_MIN = 200
"""Fewer new labels say little."""
CLASS_ROWS_MIN = 20
"""Fewer labels of one class say little."""
UNDEFINED = Estimate(None, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChampionNow:
    """What a champion is worth on the newest labels.

    champion    its version id (hex).
    metric      main metric of the task, and *shown*, its name for people.
    rows        labels in the window.
    window_ms   their first and last instant, Unix ms; None without labels.
    now         the metric on the window.
    registered  the metric in the champion's card.
    change      now - registered; its interval is of both.
    less_better whether the metric is a loss.
    unknown     why there is no number; empty when there is one.
    """

    champion: str
    rows: int
    metric: str = "auc"
    shown: str = "AUC"
    less_better: bool = False
    window_ms: tuple[int, int] | None = None
    now: Estimate = UNDEFINED
    registered: Estimate = UNDEFINED
    change: Estimate = UNDEFINED
    unknown: str = ""

    @property
    def verdict(self) -> str:
        """Return "decayed" if the whole interval of the change is on the worse side of 0."""
        if self.change.low is None or self.change.high is None:
            return "unknown"
        decayed = self.change.low > 0.0 if self.less_better else self.change.high < 0.0
        return "decayed" if decayed else "no decay shown"

    @property
    def text(self) -> str:
        """Return the judgement as a sentence."""
        if self.now.value is None:
            return f"The champion on the newest labels: not known, because {self.unknown}."
        now = f"The champion on the newest {self.rows:,} labels: {self.shown} {_shown(self.now)}"
        if self.change.value is None:
            return f"{now}; its card has no {self.shown} to compare with."
        return (
            f"{now}, {_shown(self.registered)} when it was registered: "
            f"{_shown(self.change, sign='+')}, {self.verdict}."
        )

    def definition(self) -> dict[str, Any]:
        """Return the judgement as JSON values, for runs and cards."""
        return {
            "version": self.champion,
            "metric": self.metric,
            "rows": self.rows,
            "window_ms": None if self.window_ms is None else list(self.window_ms),
            "now": self.now.definition(),
            "registered": self.registered.definition(),
            "change": self.change.definition(),
            "verdict": self.verdict,
            "unknown": self.unknown,
        }


def judge_champion(
    recipe: Recipe, store: RowSource, labels: LabelledRows, champion: Bundle
) -> ChampionNow:
    """Return what *champion* is worth on the newest of *labels*, which it has never seen.

    Too few new labels, no rows for its features or scores that are no numbers leave the number
    unknown, with the reason: a retrain may be what mends them.
    """
    # The newest labels after those of the champion's own training.
    window = _window(labels.as_of_ms, _newest_label_ms(champion.card))
    task, rows = TASKS[recipe.task], int(window.sum())
    judged = ChampionNow(
        champion=champion.digest,
        rows=rows,
        metric=task.main_metric,
        shown=task.main_shown,
        less_better=task.less_better,
        registered=_registered(champion.card, task.main_metric),
    )
    if rows < WINDOW_ROWS_MIN:
        text = f"{rows:,} labels are newer than its own; {WINDOW_ROWS_MIN} are needed"
        return replace(judged, unknown=text)
    newest = labels.selected(window).by_group()
    outcomes = task(recipe, newest)
    counts = {name: int(event.sum()) for name, event in outcomes.events.items()}
    if min(counts.values(), default=CLASS_ROWS_MIN) < CLASS_ROWS_MIN:
        found = " and ".join(f"{count:,} are {name}" for name, count in counts.items())
        text = f"{rows:,} labels are newer than its own, of which {found}; "
        text += f"{WINDOW_ROWS_MIN} are needed, and {CLASS_ROWS_MIN} of each class"
        return replace(judged, unknown=text)
    span = int(newest.as_of_ms.min()), int(newest.as_of_ms.max())
    judged = replace(judged, window_ms=span)
    # It reads the features of its own contract.
    name = f"champion {champion.digest[:16]} on the newest labels"
    bound = recipe.gate.without_row_max
    try:
        require_comparable(recipe, champion)
        inputs, _ = joined_rows(name, store, champion.contract, newest, without_row_max=bound)
        scores = scoring.load_session(champion).run(inputs).astype(np.float64)
    except (GateFailedError, JoinError, LabelsError, ScoringError) as error:
        return replace(judged, unknown=str(error))
    if not np.isfinite(scores).all():
        return replace(judged, unknown="it scores some of these rows NaN or infinite")
    # Both numbers, and their difference.
    threshold = champion.reference.decision_threshold
    metrics = outcomes.evaluate(scores, threshold=threshold)
    if judged.metric not in metrics:
        return replace(judged, unknown="the labels name no outcome")
    now = metrics[judged.metric]
    return replace(judged, now=now, change=difference(now, judged.registered))


def difference(now: Estimate, before: Estimate) -> Estimate:
    """Return *now* - *before* of two independent samples, with its interval."""
    if now.value is None or now.low is None or now.high is None:
        return UNDEFINED
    if before.value is None or before.low is None or before.high is None:
        return UNDEFINED
    own = (now.value, now.low, now.high)
    return Estimate(*ends_of_difference(own, (before.value, before.low, before.high)))


def _shown(estimate: Estimate, sign: str = "") -> str:
    numbers = (estimate.value, estimate.low, estimate.high)
    value, low, high = (f"{number:{sign}.4f}" for number in numbers)
    return f"{value} [{low}, {high}]"


def _window(as_of_ms: NDArray[np.int64], seen_ms: int) -> NDArray[np.bool_]:
    """Return (N,) bool, the newest labels after *seen_ms*; those of one instant stay together."""
    later = as_of_ms > seen_ms
    if later.sum() > WINDOW_ROWS:
        later &= as_of_ms >= np.partition(as_of_ms, -WINDOW_ROWS)[-WINDOW_ROWS]
    return later


def _newest_label_ms(card: Mapping[str, Any]) -> int:
    """Return the instant of the newest label of a version's training; 0 if its card has none."""
    match card:
        case {"data": {"as_of_ms": [int(), int() as newest]}}:
            return newest
    return 0


def _registered(card: Mapping[str, Any], metric: str) -> Estimate:
    """Return *metric* in a card, whose author may have written anything."""
    match card:
        case {"metrics": Mapping() as metrics}:
            match metrics.get(metric):
                case {
                    "value": float() | int() as value,
                    "low": float() | int() as low,
                    "high": float() | int() as high,
                }:
                    return Estimate(float(value), float(low), float(high))
    return UNDEFINED
