"""A recipe: everything a version depends on, besides the data."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from features.contract import ModelContract, ViewUse
from training.errors import RecipeError

LearnerKind = Literal["logistic", "forest", "boosting"]
Calibration = Literal["none", "sigmoid", "isotonic"]
Scaling = Literal["none", "standard"]


@dataclass(frozen=True, kw_only=True)
class Learner:
    """How the model learns.

    kind         "logistic" (LogisticRegression), "forest" (RandomForestClassifier) or "boosting"
                 (HistGradientBoostingClassifier), all of scikit-learn.
    parameters   its constructor's arguments, except random_state, which is the recipe's seed.
    calibration  "sigmoid" wraps it in CalibratedClassifierCV with 3 folds.
    scaling      "standard" only before "logistic", where it is folded back into the coefficients.
    """

    kind: LearnerKind
    parameters: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration = "none"
    scaling: Scaling = "none"


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """What a version must show before it may be registered.

    auc_min             held-out AUC, with or without a champion.
    auc_gain_low_min    the low end of the 95 % interval of AUC(candidate) - AUC(champion) on the
                        same held-out rows must be above it.
    held_out_rows_min   fewer held-out rows prove nothing.
    difference_max      largest |scikit-learn - ONNX| probability on any certified row.
    """

    auc_min: float = 0.7
    auc_gain_low_min: float = 0.0
    held_out_rows_min: int = 500
    difference_max: float = 1e-5


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One model in one setting.

    model            the registry's name of it; also salts the split, so that every version of a
                     model is judged on rows that no version of it was fitted on.
    setting          which of the model's recipes this is ("champion", "candidate", ...).
    label            what a score is the probability of.
    held_out_share   of the entities, 0 to 1 exclusive.
    threshold        a score at or above it is a positive decision.
    audit            features by which fairness is judged, joined for the audit alone.
    """

    model: str
    setting: str
    contract: ModelContract
    label: str
    learner: Learner
    seed: int = 7
    held_out_share: float = 0.3
    threshold: float = 0.5
    gate: GateSettings = field(default_factory=GateSettings)
    audit: tuple[ViewUse, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 < self.held_out_share < 1.0:
            raise RecipeError(
                f"recipe {self.model}/{self.setting} holds out {self.held_out_share} of the "
                "entities; it must be above 0 and below 1"
            )
        if not 0.0 < self.threshold < 1.0 or not math.isfinite(self.threshold):
            raise RecipeError(
                f"recipe {self.model}/{self.setting} decides at {self.threshold}; a probability "
                "above 0 and below 1 decides"
            )
        if self.contract.inputs:
            names = [item.name for item in self.contract.inputs]
            raise RecipeError(
                f"recipe {self.model}/{self.setting} declares request inputs {names}; training "
                "sets come from views alone so far: move them into a view"
            )
        if len(self.contract.outputs) != 1:
            raise RecipeError(
                f"recipe {self.model}/{self.setting} declares {len(self.contract.outputs)} "
                "outputs; a binary model has one, the probability of its label"
            )
