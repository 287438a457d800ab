"""Whose loan will go bad: 13 facts, 28 in 100 did."""

from features.contract import ModelContract, ViewUse
from features.sources import credit
from features.sources.telco import ENTITY
from training.labels import Labels
from training.recipe import Learner, Recipe

MODEL = "credit"
SETTINGS = ("candidate",)


def recipe(setting: str = "candidate") -> Recipe:
    """Return the credit recipe: all 13 features."""
    names = tuple(feature.name for feature in credit.credit_profile.features)
    return Recipe(
        model=MODEL,
        setting=setting,
        contract=ModelContract(
            entities=(ENTITY,),
            views=(ViewUse(view=credit.credit_profile, features=names),),
            outputs=("bad",),
        ),
        label="bad",
        learner=Learner(
            kind="boosting",
            parameters={"max_iter": 100, "learning_rate": 0.07, "max_leaf_nodes": 8},
        ),
    )


def labels(*, now_ms: int) -> Labels:
    """Which loans went bad, asked as of *now_ms* (Unix ms). SourceError without `data`."""
    known = credit.credit_labels(now_ms=now_ms)
    return Labels(ids={ENTITY: known.subscribers}, as_of_ms=known.as_of_ms, positive=known.bad)
