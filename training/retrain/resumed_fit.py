"""Takes the fit of an interrupted training from its kept steps, or fits and keeps it."""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation import gate
from training.export.parity import ParityCertificate
from training.recipe import Recipe
from training.retrain.step_cache import StepCache, StepResult
from training.split import Split
from training.tasks.certified_fit import CertifiedFit, fit_and_certify
from training.tasks.outcomes import Outcomes


def resumed_fit(
    recipe: Recipe,
    rows: NDArray[np.float32],
    split: Split,
    outcomes: Outcomes,
    steps: StepCache,
    inputs: dict[str, Any],
) -> CertifiedFit:
    """Do as `fit_and_certify` does, unless the fit of *inputs* is kept, which has no model."""
    # The fit of an interrupted training.
    kept = steps.load("fit", inputs)
    if kept is not None:
        return CertifiedFit(
            rows=rows,
            split=split,
            held_out_outcomes=outcomes.selected(split.held_out),
            model=None,
            onnx=kept.files["model.onnx"],
            edges=kept.arrays["edges"],
            scores=kept.arrays["scores"],
            threshold=kept.facts["threshold"],
            parity=ParityCertificate(**kept.facts["parity"]),
            leakage=gate.GateCheck(**kept.facts["leakage"]),
            native=kept.facts["native"],
        )
    fitted = fit_and_certify(recipe, rows, split, outcomes)
    # A fit that the gate will refuse is not worth keeping.
    if not fitted.parity.passed:
        return fitted
    facts = {
        "threshold": fitted.threshold,
        "parity": asdict(fitted.parity),
        "leakage": asdict(fitted.leakage),
        "native": fitted.native,
    }
    arrays = {"edges": fitted.edges, "scores": fitted.scores}
    steps.keep("fit", inputs, StepResult(facts, arrays, {"model.onnx": fitted.onnx}))
    return fitted
