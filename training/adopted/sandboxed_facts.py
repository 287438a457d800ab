"""Tries explanations of an adopted version in a sandboxed child, because they run its graph.

The graph may have written the child's answer, so nothing of it goes into the card unchecked.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host.sandbox.exchange import MalformedMessageError, Message, pack_message, unpack_message
from host.sandbox.run import (
    Isolation,
    SandboxError,
    SandboxTask,
    choose_isolation,
    run_in_sandbox,
)
from host.text import escape_controls
from registry.explanation.explainer import METHOD
from training.adopted.sandboxed_proof import LIMITS, ROOMS, SENTENCE_MAX
from training.artifacts.explanations import TRIED_ROWS_MAX, explanation_facts
from training.artifacts.importances import ROWS_MAX, importance_facts
from training.export.onnx_model import OnnxModel

MODULE = "training.adopted.sandboxed_facts"
UNITS = ("log-odds", "probability", "value")
IMPORTANCE_SEED = 0


def facts_in_sandbox(
    model: str,
    files: Mapping[str, bytes],
    names: Sequence[str],
    rows: NDArray[np.float32],
    *,
    is_real: bool,
    isolation: Isolation | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Return the card's `explanation`, and `importances` if the rows are real.

    files    of the version, with a card that is not complete yet.
    names    the F model inputs.
    rows     (S, F) sample rows with finite scores.
    is_real  whether no part of a row is made up; made-up rows tell nothing about importances.

    A version that cannot be explained may be served all the same, and the card says why.
    """
    some = rows[:: max(1, len(rows) // ROWS_MAX)][:ROWS_MAX]
    document = {"model": model, "names": list(names), "is_real": is_real}
    request = Message(document, {"rows": some}, dict(files))
    task = SandboxTask(module=MODULE, packages=ROOMS, request=pack_message(request))
    try:
        answered = run_in_sandbox(task, LIMITS, isolation or choose_isolation(), progress)
        return _checked(unpack_message(answered).document, names)
    except SandboxError as error:
        return _not_explained(f"the child that tries explanations failed: {error}")
    except (MalformedMessageError, KeyError, TypeError, ValueError):
        return _not_explained("the child that tries explanations gave a malformed answer")


def answer(request: bytes, step: Callable[[str], None]) -> bytes:
    """Return the answer to *request*. The child calls it."""
    message = unpack_message(request)
    document, rows = message.document, message.arrays["rows"]
    step("trying explanations")
    facts = explanation_facts(document["model"], message.files, rows)
    if document["is_real"]:
        score = OnnxModel(message.files["model.onnx"]).scores
        facts |= importance_facts(document["names"], score, rows, seed=IMPORTANCE_SEED)
    return pack_message(Message(facts))


def _not_explained(reason: str) -> dict[str, Any]:
    shown = escape_controls(reason[:SENTENCE_MAX])
    return {"explanation": {"possible": False, "reason": shown, "method": METHOD}}


def _checked(answered: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the facts of a child's answer. Raises KeyError, TypeError or ValueError."""
    said = answered["explanation"]
    if said["possible"] is not True:
        facts = _not_explained(str(said["reason"]))
    else:
        rows, background = int(said["rows"]), int(said["background_rows"])
        if said["unit"] not in UNITS or not (0 <= rows <= TRIED_ROWS_MAX and background > 0):
            raise ValueError("the explanation has an unknown unit or an impossible number of rows")
        explained = {"possible": True, "method": METHOD, "unit": said["unit"], "rows": rows}
        facts = {"explanation": {**explained, "background_rows": background}}
    if "importances" in answered:
        sizes = {name: float(answered["importances"][name]) for name in names}
        if not all(0.0 <= size < math.inf for size in sizes.values()):
            raise ValueError("an importance is negative, infinite or NaN")
        facts["importances"] = sizes
    return facts
