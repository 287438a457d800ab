"""Propensity: which customers will buy the caravan policy. 6 % of the customers in the table did.

The label is rare, so the decision threshold is .1.
"""

from features.contract import ViewUse
from features.sources import caravan
from features.sources.public_tables import ENTITY
from training.labelled_rows import LabelledRows
from training.recipe import GateSettings, Learner, Recipe

MODEL = "propensity"
SETTINGS = ("candidate",)


def recipe(setting: str = "candidate") -> Recipe:
    """Return the propensity recipe. Its trees are small and learn slowly against overfitting."""
    names = tuple(feature.name for feature in caravan.caravan_profile.features)
    return Recipe(
        model=MODEL,
        setting=setting,
        features=(ViewUse(view=caravan.caravan_profile, features=names),),
        label="bought",
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


def labels(*, now_ms: int) -> LabelledRows:
    """Return the labels of the 5,822 real customers as of *now_ms*, Unix ms.

    Raises SourceError when the `data` extra is not installed.
    """
    buyers = caravan.caravan_labels(now_ms=now_ms)
    return LabelledRows(
        ids={ENTITY: buyers.subscribers}, as_of_ms=buyers.as_of_ms, positive=buyers.bought
    )
