"""A small made-up population: six columns that say something about churn, one that says nothing."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features.contract import ModelContract, ViewUse
from features.offline import Spine, TrainingSet
from features.views import Feature, View
from training.labels import Labels
from training.recipe import GateSettings, Learner, Recipe

ROWS = 1_500

VIEW = View(
    name="profile",
    entities=("subscriber",),
    features=(
        Feature(name="tenure", default=29.0, bounds=(0.0, 72.0)),
        Feature(name="charges", default=70.35),
        Feature(name="plan", dtype="category", dictionary=("month", "year", "two"), default=0.0),
        Feature(name="senior", default=0.0, bounds=(0.0, 1.0)),
    ),
    ttl_ms=86_400_000,
    transform="SELECT * FROM source",
)


def profile_contract(*names: str) -> ModelContract:
    """Contract over these features of VIEW."""
    return ModelContract(entities=("subscriber",), views=(ViewUse(view=VIEW, features=names),))


ALL_COLUMNS = profile_contract("tenure", "charges", "plan", "senior")


def profile_matrix() -> NDArray[np.float32]:
    """(ROWS, 4) float32; the same each time."""
    draw = np.random.default_rng(3)
    return np.column_stack(
        [
            draw.integers(0, 73, ROWS),
            draw.uniform(18, 119, ROWS).round(2),
            draw.integers(0, 3, ROWS),
            draw.random(ROWS) < 0.2,
        ]
    ).astype(np.float32)


def profile_labels() -> Labels:
    """Who left: the newer, dearer and uncommitted more often, beyond a straight line."""
    draw = np.random.default_rng(4)
    tenure, charges, plan, _ = profile_matrix().T.astype(np.float64)
    leaning = 1.5 - tenure / 18 - plan + 1.5 * ((charges > 70) & (tenure < 20))
    return Labels(
        ids={"subscriber": [f"S{number:05d}" for number in range(ROWS)]},
        as_of_ms=np.full(ROWS, 1_700_000_000_000, dtype=np.int64),
        positive=draw.random(ROWS) < 1 / (1 + np.exp(-leaning)),
    )


class PopulationStore:
    """A store that knows every subscriber of `labels`."""

    def training_set(self, contract: ModelContract, spine: Spine) -> TrainingSet:
        """(N, F): the columns asked for, of the subscribers asked for."""
        places = [int(name[1:]) for name in spine.ids["subscriber"]]
        columns = [column for use in contract.views for column in use.columns]
        values = np.ascontiguousarray(profile_matrix()[places][:, columns])
        return TrainingSet(values, np.zeros(len(values), dtype=np.uint32), contract.names)

    def digest(self, views: Sequence[View]) -> str:
        """Any 64 hex digits."""
        return views[0].view_hash


def profile_recipe(
    learner: Learner, contract: ModelContract = ALL_COLUMNS, *, gate: GateSettings | None = None
) -> Recipe:
    """Recipe over the population; its gate asks for little."""
    return Recipe(
        model="churn",
        setting="test",
        contract=contract,
        label="left",
        learner=learner,
        gate=gate or GateSettings(auc_min=0.6, held_out_rows_min=100, auc_gain_low_min=-1.0),
        audit=(ViewUse(view=VIEW, features=("senior",)),),
    )
