"""Next best action: whether a customer will take an offer.

The model reads three views, keyed by the customer, by the offer and by both.
Pairs of customer and offer are held out, not whole customers, because in use the customer is known
and the model chooses among the offers.
"""

from labels.taken import taken
from lib.columns import OFFER, SUBSCRIBER
from turnout.define import GateSettings, Learner, Recipe, ViewUse
from views.nba import nba_customer, nba_history, nba_offer

candidate = Recipe(
    model="nba",
    setting="candidate",
    entities=(SUBSCRIBER, OFFER),
    features=tuple(
        ViewUse(view=view, features=tuple(feature.name for feature in view.features))
        for view in (nba_customer, nba_offer, nba_history)
    ),
    label="taken",
    labels=taken,
    learner=Learner(
        kind="boosting",
        parameters={"max_iter": 100, "learning_rate": 0.06, "max_leaf_nodes": 8},
    ),
    # The true probabilities of the simulated data have AUC .725, so no model has more.
    gate=GateSettings(auc_min=0.65),
)
