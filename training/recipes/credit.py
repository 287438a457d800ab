"""Credit scoring: which loans will go bad. 28 % of the loans in the table did."""

from features.contract import ViewUse
from features.sources import credit
from features.sources.public_tables import ENTITY
from training.labelled_rows import LabelledRows
from training.recipe import Learner, Recipe

MODEL = "credit"
SETTINGS = ("candidate",)


def recipe(setting: str = "candidate") -> Recipe:
    """Return the credit recipe, which uses all 13 features."""
    names = tuple(feature.name for feature in credit.credit_profile.features)
    return Recipe(
        model=MODEL,
        setting=setting,
        features=(ViewUse(view=credit.credit_profile, features=names),),
        label="bad",
        learner=Learner(
            kind="boosting",
            parameters={"max_iter": 100, "learning_rate": 0.07, "max_leaf_nodes": 8},
        ),
    )


def labels(*, now_ms: int) -> LabelledRows:
    """Return the labels of the 4,454 real loans as of *now_ms*, Unix ms.

    Raises SourceError when the `data` extra is not installed.
    """
    loans = credit.credit_labels(now_ms=now_ms)
    return LabelledRows(
        ids={ENTITY: loans.subscribers}, as_of_ms=loans.as_of_ms, positive=loans.bad
    )
