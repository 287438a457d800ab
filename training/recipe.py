"""Recipes. A recipe and the data determine a version."""

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
    """The scikit-learn classifier of a recipe.

    kind         "logistic" (LogisticRegression), "forest" (RandomForestClassifier) or "boosting"
                 (HistGradientBoostingClassifier).
    parameters   arguments of the class, without random_state, which is the recipe's seed.
    calibration  "sigmoid" wraps the classifier in CalibratedClassifierCV with 3 folds.
    scaling      "standard" standardises the columns, only with "logistic". It becomes part of the
                 coefficients.
    """

    kind: LearnerKind
    parameters: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration = "none"
    scaling: Scaling = "none"


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """Bounds that a version must meet before it may be registered.

    auc_min             smallest AUC on the held-out rows.
    auc_gain_low_min    bound for the gain over a champion: the low end of the 95 % interval of
                        AUC(candidate) - AUC(champion) on the held-out rows must be above it.
    held_out_rows_min   smallest number of held-out rows.
    difference_max      largest difference of a probability between scikit-learn and ONNX, on every
                        certified row.
    """

    auc_min: float = 0.7
    auc_gain_low_min: float = 0.0
    held_out_rows_min: int = 500
    difference_max: float = 1e-5


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a version depends on, except the data.

    model            name in the registry. It also salts the split, so that every version of a
                     model is evaluated on rows that no version of it was fitted on.
    setting          name of the recipe among the model's recipes ("champion", "candidate", ...).
    label            name of the event whose probability is the score.
    held_out_share   share of the entities that is held out, above 0 and below 1.
    threshold        a score at or above it is a positive decision.
    audit            features for the fairness report. The model need not read them.

    Raises RecipeError when these contradict each other.
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
                f"recipe {self.model}/{self.setting} decides at {self.threshold}; the threshold "
                "must be above 0 and below 1"
            )
        if self.contract.inputs:
            names = [item.name for item in self.contract.inputs]
            raise RecipeError(
                f"recipe {self.model}/{self.setting} declares request inputs {names}; training "
                "sets come from views only so far, so move these inputs into a view"
            )
        if len(self.contract.outputs) != 1:
            raise RecipeError(
                f"recipe {self.model}/{self.setting} declares {len(self.contract.outputs)} "
                "outputs; it must declare one, the probability of its label"
            )
