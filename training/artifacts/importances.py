"""How much each model input moves the scores. Monitoring divides its alarm budget by it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS_MAX = 1_000
"""Rows that are used. Each input costs one run of the graph over them."""
DIGITS = 6


def importance_facts(
    names: Sequence[str],
    score: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    rows: NDArray[np.float32],
    *,
    seed: int,
) -> dict[str, Any]:
    """Return the card's `importances`: input -> mean size by which its values move a score.

    names  the F model inputs.
    score  returns the scores (M, K) of some rows (M, F).
    rows   (N, F) held-out rows.

    It is the mean of |score with the value of another row - score| over rows and outputs, in the
    unit of the scores (Fisher et al., JMLR 20, 2019, with the score itself in place of a loss). So
    it needs no labels, and means the same for each learner and task. Scores that are not finite,
    which a made-up row may have, are left out.
    """
    generator = np.random.default_rng(seed)
    some = rows[:: max(1, len(rows) // ROWS_MAX)][:ROWS_MAX]
    scores = score(some).astype(np.float64)
    importances = {}
    for column, name in enumerate(names):
        exchanged = some.copy()
        exchanged[:, column] = some[generator.permutation(len(some)), column]
        with np.errstate(invalid="ignore"):
            moved = np.abs(score(exchanged) - scores)
        known = moved[np.isfinite(moved)]
        importances[name] = float(f"{known.mean():.{DIGITS}g}") if known.size else 0.0
    return {"importances": importances}
