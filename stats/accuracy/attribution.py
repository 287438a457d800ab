"""Which prediction an outcome belongs to when it comes with an entity and a time, without an id.

It belongs to a prediction of the same entity within the model's window before the event: the newest
one ("last") or the oldest one ("first"). An outcome without such a prediction is an orphan.
"""

import numpy as np
from numpy.typing import NDArray

RULES = ("last", "first")

Integers = NDArray[np.int64]


def attribute_outcomes(
    predicted_entities: Integers,
    predicted_ms: Integers,
    entities: Integers,
    happened_ms: Integers,
    *,
    window_ms: int,
    rule: str = "last",
) -> Integers:
    """Return the position of the prediction of each outcome, (N,) int64; -1: there is none.

    predicted_entities, predicted_ms  (P,) int64, entity and time of each prediction, in any order.
    entities, happened_ms             (N,) int64, entity and time of each outcome.
    window_ms                         how long before the event a prediction may be; 0 or more.

    A prediction at the instant of the event counts. Predictions of one entity at one instant are
    taken in their order. Raises ValueError for another rule, window or length.
    """
    if rule not in RULES or window_ms < 0:
        raise ValueError(f"rule {rule!r}, window {window_ms} ms: a rule is one of {RULES}")
    if len(predicted_entities) != len(predicted_ms) or len(entities) != len(happened_ms):
        raise ValueError("each prediction and each outcome has an entity and a time")
    missing = np.full(len(entities), -1, dtype=np.int64)
    if not len(predicted_entities) or not len(entities):
        return missing
    # Entities become small numbers, so that entity and time sort as one.
    known, codes = np.unique(predicted_entities, return_inverse=True)
    order = np.lexsort((predicted_ms, codes))
    starts = np.searchsorted(codes[order], np.arange(len(known)), side="left")
    ends = np.append(starts[1:], len(order))
    place = np.minimum(np.searchsorted(known, entities), len(known) - 1)
    is_known = known[place] == entities
    # Times of one entity rise, and entities are set apart by more than any time differs.
    origin = min(int(predicted_ms.min()), int(happened_ms.min()) - window_ms)
    span = max(int(predicted_ms.max()), int(happened_ms.max())) - origin + 2
    if span * (len(known) + 1) >= np.iinfo(np.int64).max:
        raise ValueError(f"times of {len(known)} entities span {span} ms, more than can be sorted")
    lines = codes[order] * span + (predicted_ms[order] - origin)
    until = np.searchsorted(lines, place * span + (happened_ms - origin), side="right")
    since = np.searchsorted(lines, place * span + (happened_ms - window_ms - origin), side="left")
    since, until = np.maximum(since, starts[place]), np.minimum(until, ends[place])
    chosen = until - 1 if rule == "last" else since
    found = is_known & (since < until)
    return np.where(found, order[np.where(found, chosen, 0)], missing)
