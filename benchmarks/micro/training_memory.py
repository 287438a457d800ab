"""Measures the memory and the CPU time of one training, step by step.

    python -m benchmarks.micro.training_memory --rows 1000000 --columns 100 --learner boosting

The features are in memory before the training begins. Each line has a step of `train_version`, its
CPU seconds, and the most memory during it, as a multiple of the features' float32 matrix. The
matrix itself counts as 1.
"""

import argparse
import threading
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.contract import ModelContract, ViewUse
from features.offline import Spine, TrainingSet
from features.storage.unjoined import Unjoined
from features.views import Feature, View
from training.labelled_rows import LabelledRows
from training.learner import Learner, LearnerKind
from training.recipe import GateSettings, Recipe
from training.train import train_version

PAGE_BYTES = 4_096
LEARNERS: dict[LearnerKind, Learner] = {
    "boosting": Learner(kind="boosting", parameters={"max_iter": 20}),
    "logistic": Learner(kind="logistic", parameters={"max_iter": 100}, scaling="standard"),
    "forest": Learner(kind="forest", parameters={"n_estimators": 10, "max_depth": 8}),
}


class MatrixStore:
    """A feature source with one matrix (N, F), whose held-out part may be read for an audit."""

    def __init__(self, values: NDArray[np.float32]) -> None:
        self._values = values

    def training_set(
        self, contract: ModelContract, spine: Spine, *, with_known: bool = False
    ) -> TrainingSet:
        """Return the first rows and columns of the matrix, as many as are wanted."""
        values = self._values[: len(spine.as_of_ms), : len(contract.names)]
        flags = np.zeros((len(values), len(contract.views)), dtype=np.uint32)
        known = np.ones(values.shape, dtype=np.bool_) if with_known else None
        return TrainingSet(values, flags, contract.names, known)

    def unjoined(self, view: View, spine: Spine) -> Unjoined:
        """Never asked, because every row is there."""
        raise NotImplementedError

    def digest(self, views: Sequence[View]) -> str:
        """Return some 64 hex digits."""
        return views[0].view_hash

    def ingested(self, view: View) -> tuple[int, str]:
        """Return one ingest."""
        return 1, view.view_hash


class PeakMemory:
    """The most resident memory of this process since the last look, sampled every 20 ms."""

    def __init__(self) -> None:
        self._most = self.now()
        threading.Thread(target=self._watch, daemon=True).start()

    @staticmethod
    def now() -> int:
        """Return the resident memory in bytes."""
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES

    def since_last(self) -> int:
        """Return the peak in bytes, and begin anew."""
        most, self._most = self._most, self.now()
        return most

    def _watch(self) -> None:
        while True:
            self._most = max(self._most, self.now())
            time.sleep(0.02)


def main() -> None:
    """Train once, and print a line for each step."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--learner", choices=sorted(LEARNERS), default="boosting")
    options = parser.parse_args()
    # Three columns tell the label, with a product that only trees find.
    generator = np.random.default_rng(1)
    values = generator.standard_normal((options.rows, options.columns), dtype=np.float32)
    log_odds = values[:, 0] + values[:, 1] * values[:, 2] - 1.0
    view = View(
        name="wide",
        entities=("subscriber",),
        features=tuple(Feature(name=f"f{n}", default=0.0) for n in range(options.columns)),
        ttl_ms=86_400_000,
        transform="SELECT * FROM source",
    )
    names = tuple(feature.name for feature in view.features)
    recipe = Recipe(
        model="wide",
        setting="measured",
        features=(ViewUse(view=view, features=names),),
        label="left",
        learner=LEARNERS[options.learner],
        gate=GateSettings(auc_min=0.5),
        audit=(ViewUse(view=view, features=names[:1]),),
    )
    labels = LabelledRows(
        ids={"subscriber": [f"S{number:08d}" for number in range(options.rows)]},
        as_of_ms=np.full(options.rows, 1_700_000_000_000),
        positive=generator.random(options.rows) < 1 / (1 + np.exp(-log_odds)),
    )
    # What is there before the training is left out of the sum, except the matrix: Python, and the
    # libraries that training imports when it begins to fit.
    for name in ("training.learners.fit", "training.export.convert"):
        import_module(name)
    peak, step = PeakMemory(), "start"
    before, cpu = peak.now() - values.nbytes, time.process_time()

    def end_step(following: str) -> None:
        nonlocal step, cpu
        used, multiple = time.process_time() - cpu, (peak.since_last() - before) / values.nbytes
        print(f"{step:25} {used:7.1f} s {multiple:6.2f} times the matrix", flush=True)
        step, cpu = following, time.process_time()

    print(f"{options.learner}: {options.rows:,} x {options.columns}, {values.nbytes / 1e6:,.0f} MB")
    train_version(recipe, MatrixStore(values), labels, progress=end_step)
    end_step("end")


if __name__ == "__main__":
    main()
