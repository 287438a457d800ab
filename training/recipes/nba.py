"""Next best action: will this customer take this offer? Two entities, three views, one call.

Pairs are held out, not customers: a score is for choosing among offers for a customer who is known.
"""

from features.contract import ModelContract, ViewUse
from features.sources import offers
from features.sources.telco import ENTITY
from training.labels import Labels
from training.recipe import GateSettings, Learner, Recipe

MODEL = "nba"
SETTINGS = ("candidate",)


def recipe(setting: str = "candidate") -> Recipe:
    """Return the next-best-action recipe: every feature of the customer, the offer and the pair."""
    return Recipe(
        model=MODEL,
        setting=setting,
        contract=ModelContract(
            entities=(ENTITY, offers.OFFER),
            views=tuple(
                ViewUse(view=view, features=tuple(feature.name for feature in view.features))
                for view in offers.VIEWS
            ),
            outputs=("taken",),
        ),
        label="taken",
        learner=Learner(
            kind="boosting",
            parameters={"max_iter": 100, "learning_rate": 0.06, "max_leaf_nodes": 8},
        ),
        # The rule's own probabilities reach .725: the rest is chance.
        gate=GateSettings(auc_min=0.65),
    )


def labels(*, now_ms: int) -> Labels:
    """Who took what, asked as of *now_ms* (Unix ms)."""
    known = offers.offer_labels(now_ms=now_ms)
    return Labels(
        ids={ENTITY: known.subscribers, offers.OFFER: known.offers},
        as_of_ms=known.as_of_ms,
        positive=known.taken,
    )
