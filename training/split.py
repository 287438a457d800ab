"""Splits labelled rows into held-out rows, by which a version is judged, and rows to fit on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from host.clock import DAY_MS
from training.errors import LabelsError
from training.labelled_rows import LabelledRows
from training.learner import CALIBRATION_FOLDS
from training.recipe import Recipe

HASH_BUCKETS = 1_000_000
BY_ENTITY = "xxh3_64 of the joined entity ids, salted by the model's name"
BY_GROUP = "xxh3_64 of the call's id, salted by the model's name"


@dataclass(frozen=True, eq=False, slots=True)
class Split:
    """What each of N labelled rows is for. A row may be for nothing.

    held_out  (N,) bool, the rows by which the version is judged.
    fitted    (N,) bool, the rows that the learner is fitted on.
    gap       number of rows in the gap between both.
    """

    held_out: NDArray[np.bool_]
    fitted: NDArray[np.bool_]
    gap: int


def split_rows(recipe: Recipe, labels: LabelledRows) -> Split:
    """Return what each row is for. The offers of a call are on one side.

    Raises LabelsError when the labels lack an id.
    """
    # Sorted, because two recipes of one model may name the same entities in another order. A row
    # that one version was fitted on must not be held out for the other.
    keys = (
        labels.joined_ids(sorted(recipe.contract.entities))
        if labels.groups is None
        else [group.encode() for group in labels.groups.tolist()]
    )
    if recipe.held_out_days:
        held_out, before = _by_time(recipe, labels.as_of_ms)
    else:
        held_out = is_held_out(recipe.model, keys, recipe.held_out_share)
        before = ~held_out
    # Negatives are left out row by row, so that no customer disappears as a whole.
    fitted = before
    if recipe.negatives_share < 1.0 and labels.positive is not None:
        rows = [
            key + b"\x1f%d" % at for key, at in zip(keys, labels.as_of_ms.tolist(), strict=True)
        ]
        kept = is_held_out(f"negatives\x00{recipe.model}", rows, recipe.negatives_share)
        fitted = before & (labels.positive | kept)
    return Split(held_out, fitted, int((~held_out & ~before).sum()))


def _by_time(
    recipe: Recipe, as_of_ms: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the rows of the last days, and the rows from before the gap."""
    first_held_out = as_of_ms.max() - round(recipe.held_out_days * DAY_MS)
    last_fitted = first_held_out - round(recipe.gap_days * DAY_MS)
    return as_of_ms > first_held_out, as_of_ms <= last_fitted


def check_both_sides(recipe: Recipe, split: Split, events: Mapping[str, NDArray[np.bool_]]) -> None:
    """Raise LabelsError if one side has no row, or too few for a calibration, of an outcome.

    events  name of an outcome -> the rows that have it, (N,) bool.
    """
    fitted_min = CALIBRATION_FOLDS if recipe.learner.calibration != "none" else 1
    for name, outcomes in events.items():
        judged, fitted = (
            int((outcomes & split.held_out).sum()),
            int((outcomes & split.fitted).sum()),
        )
        if judged < 1 or fitted < fitted_min:
            raise LabelsError(
                f"{recipe.model}/{recipe.setting}: of {int(outcomes.sum()):,} {name} labels, "
                f"{judged:,} are held out and {fitted:,} are left to fit on; at least 1 and "
                f"{fitted_min} are needed: give more {name} labels, or another held_out_share or "
                "held_out_days"
            )


def is_held_out(model: str, keys: Sequence[bytes], share: float) -> NDArray[np.bool_]:
    """Return (N,) bool, True for the rows that no version of *model* is fitted on.

    The choice is a hash of the key, so it depends on no order, run or machine.

    keys    the key of each row. Rows with the same key are on the same side.
    share   share of the distinct keys that is held out, 0 to 1. The keys of a smaller share are
            among those of a larger share.
    """
    salt = b"held-out\x00" + model.encode() + b"\x00"
    limit = round(share * HASH_BUCKETS)
    return np.array(
        [xxh3_64_intdigest(salt + key) % HASH_BUCKETS < limit for key in keys], dtype=np.bool_
    )
