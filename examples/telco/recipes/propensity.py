"""Propensity: which customers will buy the caravan policy. 6 % of the customers in the table did.

The label is rare, so the decision threshold is .1.
"""

from labels.bought import bought
from turnout.define import GateSettings, Learner, Recipe, ViewUse
from views.caravan_profile import caravan_profile

candidate = Recipe(
    model="propensity",
    setting="candidate",
    features=(
        ViewUse(
            view=caravan_profile,
            features=tuple(feature.name for feature in caravan_profile.features),
        ),
    ),
    label="bought",
    labels=bought,
    # Small trees that learn slowly, against overfitting.
    learner=Learner(
        kind="boosting",
        parameters={
            "max_iter": 80,
            "learning_rate": 0.04,
            "max_leaf_nodes": 6,
            "l2_regularization": 5.0,
        },
    ),
    threshold=0.1,
    gate=GateSettings(auc_min=0.65),
)
