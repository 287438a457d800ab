"""Splits labelled rows into held-out rows, by which a version is judged, and rows to fit on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from training.errors import LabelsError
from training.labelled_rows import LabelledRows
from training.recipe import CALIBRATION_FOLDS, Recipe

HASH_BUCKETS = 1_000_000


def held_out_rows(recipe: Recipe, labels: LabelledRows) -> NDArray[np.bool_]:
    """Return (N,) bool, True for held-out rows; LabelsError if a side lacks one of the classes."""
    # Sorted, because two recipes of one model may name the same entities in another order. A row
    # that one version was fitted on must not be held out for the other.
    keys = labels.joined_ids(sorted(recipe.contract.entities))
    held_out = is_held_out(recipe.model, keys, recipe.held_out_share)
    fitted_min = CALIBRATION_FOLDS if recipe.learner.calibration != "none" else 1
    for name, outcomes in (("positive", labels.positive), ("negative", ~labels.positive)):
        judged, fitted = int((outcomes & held_out).sum()), int((outcomes & ~held_out).sum())
        if judged < 1 or fitted < fitted_min:
            raise LabelsError(
                f"{recipe.model}/{recipe.setting}: of {judged + fitted:,} {name} labels, "
                f"{judged:,} are held out and {fitted:,} are left to fit on; at least 1 and "
                f"{fitted_min} are needed: give more {name} labels, or another held_out_share"
            )
    return held_out


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
