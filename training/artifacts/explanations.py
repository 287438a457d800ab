"""Says at training whether the scores of a version can be explained, and how well reasons hold."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.bundle import seal_files, verify_bundle
from registry.explanation.decided import read_decision_explainer, reason_fidelity
from registry.explanation.errors import NotExplainedError
from registry.explanation.explainer import METHOD, VersionExplainer

TRIED_ROWS_MAX = 200
"""Held-out rows that are explained at training, to see that each explanation adds up."""


def explanation_facts(
    model: str, files: Mapping[str, bytes], held_out: NDArray[np.float32]
) -> dict[str, Any]:
    """Return the card's `explanation`.

    files     of the version. Its card may be missing; a card says the tolerance of scores.
    held_out  (N, F) rows that the version was not fitted on.

    A version that cannot be explained may be served all the same, and its card says why.
    """
    sealed = seal_files({"card.json": b"{}", **files}, model=model, author="-", created_unix_ms=0)
    rows = held_out[:: max(1, len(held_out) // TRIED_ROWS_MAX)][:TRIED_ROWS_MAX]
    try:
        explainer = VersionExplainer(verify_bundle(sealed, trusted_key=None), sealed)
        for row in rows:
            explainer.explain(row)
        decisions = read_decision_explainer(explainer, sealed)
        reasons = {} if decisions is None else {"reasons": reason_fidelity(decisions, rows)}
    except NotExplainedError as error:
        return {"explanation": {"possible": False, "reason": str(error), "method": METHOD}}
    facts = {
        "possible": True,
        "method": METHOD,
        "unit": explainer.space,
        "rows": len(rows),
        "background_rows": len(explainer.background.rows),
        **reasons,
    }
    return {"explanation": facts}
