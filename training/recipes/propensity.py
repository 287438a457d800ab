"""Who will buy: the caravan policy, which 6 in 100 bought. Rare, so it decides at 1 in 10."""

from features.contract import ModelContract, ViewUse
from features.sources import caravan
from features.sources.telco import ENTITY
from training.labels import Labels
from training.recipe import GateSettings, Learner, Recipe

MODEL = "propensity"
SETTINGS = ("candidate",)


def recipe(setting: str = "candidate") -> Recipe:
    """Return the propensity recipe: small, slow trees, for 85 features overfit soon."""
    names = tuple(feature.name for feature in caravan.caravan_profile.features)
    return Recipe(
        model=MODEL,
        setting=setting,
        contract=ModelContract(
            entities=(ENTITY,),
            views=(ViewUse(view=caravan.caravan_profile, features=names),),
            outputs=("bought",),
        ),
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


def labels(*, now_ms: int) -> Labels:
    """Who bought, asked as of *now_ms* (Unix ms). Raises SourceError without the `data` extra."""
    known = caravan.caravan_labels(now_ms=now_ms)
    return Labels(ids={ENTITY: known.subscribers}, as_of_ms=known.as_of_ms, positive=known.bought)
