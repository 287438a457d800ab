"""Credit scoring: which loans will go bad. 28 % of the loans in the table did."""

from labels.bad import bad
from turnout.define import Learner, ReasonGroup, Reasons, Recipe, ViewUse
from views.credit_profile import credit_profile


def _features(*names: str) -> tuple[str, ...]:
    return tuple(f"credit_profile:{name}" for name in names)


# A score at or above the threshold refuses the loan. The customer is told why, in these words.
reasons = Reasons(
    adverse="above",
    groups=(
        ReasonGroup(
            name="employment",
            features=_features("seniority", "job"),
            texts={
                "en": "You have been in your job for a short time, or it is of this kind.",
                "es": "Lleva poco tiempo en su empleo, o en este tipo de trabajo.",
            },
        ),
        ReasonGroup(
            name="records",
            features=_features("records"),
            texts={
                "en": "There are records of earlier payments that were not made.",
                "es": "Constan pagos anteriores no realizados.",
            },
        ),
        ReasonGroup(
            name="loan",
            features=_features("amount", "time"),
            texts={
                "en": "The amount or the time of the loan is large.",
                "es": "El importe o el plazo del préstamo es grande.",
            },
            changeable=True,
            direction="down",
        ),
        ReasonGroup(
            name="means",
            features=_features("income", "assets", "debt", "expenses"),
            texts={
                "en": "Your income and assets are low for your debts and expenses.",
                "es": "Sus ingresos y bienes son bajos para sus deudas y gastos.",
            },
        ),
        ReasonGroup(
            name="price",
            features=_features("price"),
            texts={
                "en": "The loan is large for the price of what is bought.",
                "es": "El préstamo es grande para el precio de la compra.",
            },
        ),
        ReasonGroup(
            name="home",
            features=_features("home"),
            texts={
                "en": "Your housing is not your own.",
                "es": "Su vivienda no es propia.",
            },
        ),
        # No decision on credit may rest on these.
        ReasonGroup(
            name="person", features=_features("age", "marital"), disclosed=False, protected=True
        ),
    ),
)

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
    reasons=reasons,
    learner=Learner(
        kind="boosting",
        parameters={"max_iter": 100, "learning_rate": 0.07, "max_leaf_nodes": 8},
    ),
)
