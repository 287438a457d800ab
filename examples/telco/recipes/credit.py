"""Credit scoring: which loans will go bad. 28 % of the loans in the table did."""

from labels.bad import bad
from turnout.define import Learner, Recipe, ViewUse
from views.credit_profile import credit_profile

candidate = Recipe(
    model="credit",
    setting="candidate",
    features=(
        ViewUse(
            view=credit_profile, features=tuple(feature.name for feature in credit_profile.features)
        ),
    ),
    label="bad",
    labels=bad,
    learner=Learner(
        kind="boosting",
        parameters={"max_iter": 100, "learning_rate": 0.07, "max_leaf_nodes": 8},
    ),
)
