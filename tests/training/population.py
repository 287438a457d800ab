"""A small simulated population with four columns, of which three affect churn."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features.contract import ModelContract, ViewUse
from features.offline import Spine, TrainingSet
from features.storage.unjoined import Unjoined
from features.views import Feature, View
from training.labelled_rows import LabelledRows
from training.learner import Learner
from training.recipe import GateSettings, Recipe

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
    """A contract over these features of VIEW."""
    return ModelContract(entities=("subscriber",), views=(ViewUse(view=VIEW, features=names),))


ALL_COLUMNS = profile_contract("tenure", "charges", "plan", "senior")


def profile_matrix() -> NDArray[np.float32]:
    """The population, (ROWS, 4) float32. It is the same each time."""
    generator = np.random.default_rng(3)
    return np.column_stack(
        [
            generator.integers(0, 73, ROWS),
            generator.uniform(18, 119, ROWS).round(2),
            generator.integers(0, 3, ROWS),
            generator.random(ROWS) < 0.2,
        ]
    ).astype(np.float32)


def profile_labels(at_ms: int = 1_700_000_000_000, *, turned: float = 0.0) -> LabelledRows:
    """Labels: newer customers, higher charges and monthly plans leave more often.

    at_ms   their instant.
    turned  share of the customers, 0 to 1, who do the opposite.
    """
    generator = np.random.default_rng(4)
    tenure, charges, plan, _ = profile_matrix().T.astype(np.float64)
    log_odds = 1.5 - tenure / 18 - plan + 1.5 * ((charges > 70) & (tenure < 20))
    left = generator.random(ROWS) < 1 / (1 + np.exp(-log_odds))
    return LabelledRows(
        ids={"subscriber": [f"S{number:05d}" for number in range(ROWS)]},
        as_of_ms=np.full(ROWS, at_ms, dtype=np.int64),
        positive=left ^ (generator.random(ROWS) < turned),
    )


class PopulationStore:
    """A feature source with every subscriber of `profile_labels`."""

    def training_set(
        self, contract: ModelContract, spine: Spine, *, with_known: bool = False
    ) -> TrainingSet:
        """The columns of the contract for the subscribers of the spine, (N, F)."""
        indices = [int(name[1:]) for name in spine.ids["subscriber"]]
        columns = [column for use in contract.views for column in use.columns]
        values = np.ascontiguousarray(profile_matrix()[indices][:, columns])
        flags = np.zeros((len(values), len(contract.views)), dtype=np.uint32)
        known = np.ones_like(values, dtype=np.bool_) if with_known else None
        return TrainingSet(values, flags, contract.names, known)

    def unjoined(self, view: View, spine: Spine) -> Unjoined:
        """Never asked: every subscriber has a row."""
        raise NotImplementedError

    def digest(self, views: Sequence[View]) -> str:
        """Some 64 hex digits."""
        return views[0].view_hash

    def ingested(self, view: View) -> tuple[int, str]:
        """Say that there was one ingest."""
        return 1, view.view_hash


def profile_recipe(
    learner: Learner, contract: ModelContract = ALL_COLUMNS, *, gate: GateSettings | None = None
) -> Recipe:
    """A recipe over the population whose gate has low bounds."""
    return Recipe(
        model="churn",
        setting="test",
        features=contract.views,
        label="left",
        learner=learner,
        gate=gate or GateSettings(auc_min=0.6, held_out_rows_min=100, auc_gain_low_min=-1.0),
        audit=(ViewUse(view=VIEW, features=("senior",)),),
    )
