"""Next best action predicts whether a customer will take an offer.

The model reads three views, keyed by the customer, by the offer and by both.
Pairs of customer and offer are held out, not whole customers, because in use the customer is known
and the model chooses among the offers.
"""

from features.contract import ViewUse
from features.sources import offers
from features.sources.public_tables import ENTITY
from training.labelled_rows import LabelledRows
from training.recipe import GateSettings, Learner, Recipe

MODEL = "nba"
SETTINGS = ("candidate",)


def recipe(setting: str = "candidate") -> Recipe:
    """Return the recipe, which uses all features of the customer, the offer and the pair."""
    return Recipe(
        model=MODEL,
        setting=setting,
        entities=(ENTITY, offers.OFFER),
        features=tuple(
            ViewUse(view=view, features=tuple(feature.name for feature in view.features))
            for view in offers.VIEWS
        ),
        label="taken",
        learner=Learner(
            kind="boosting",
            parameters={"max_iter": 100, "learning_rate": 0.06, "max_leaf_nodes": 8},
        ),
        # The true probabilities of the simulated data have AUC .725, so no model has more.
        gate=GateSettings(auc_min=0.65),
    )


def labels(*, now_ms: int) -> LabelledRows:
    """Return the labels of all pairs of customer and offer as of *now_ms*, Unix ms."""
    pairs = offers.offer_labels(now_ms=now_ms)
    return LabelledRows(
        ids={ENTITY: pairs.subscribers, offers.OFFER: pairs.offers},
        as_of_ms=pairs.as_of_ms,
        positive=pairs.taken,
    )
