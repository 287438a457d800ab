"""The learner of a recipe, as its author declares it. Nothing is fitted here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

LearnerKind = Literal["logistic", "forest", "boosting"]
Calibration = Literal["none", "sigmoid", "isotonic"]
Scaling = Literal["none", "standard"]
CALIBRATION_FOLDS = 3
"""Folds of a calibration. Each needs a row of either class."""


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

    def definition(self) -> dict[str, Any]:
        """Return the learner as JSON values, if its parameters are such values."""
        return {
            "kind": self.kind,
            "parameters": dict(self.parameters),
            "calibration": self.calibration,
            "scaling": self.scaling,
        }
