"""The four demo models' sources, in a real offline store."""

from collections.abc import Callable
from pathlib import Path

from features.ingest.load import ingest
from features.offline import OfflineStore
from features.sources import caravan, credit, offers, telco
from features.views import View

NOW_MS = 1_790_000_000_000


def _churn(folder: Path, now_ms: int) -> dict[str, Path]:
    path = folder / "telco.parquet"
    telco.build_telco_source(path, now_ms=now_ms, subscribers=telco.REAL_ROWS, history_rows=0)
    return {telco.churn_profile.name: path}


def _propensity(folder: Path, now_ms: int) -> dict[str, Path]:
    path = folder / "caravan.parquet"
    caravan.build_caravan_source(path, now_ms=now_ms)
    return {caravan.caravan_profile.name: path}


def _credit(folder: Path, now_ms: int) -> dict[str, Path]:
    path = folder / "credit.parquet"
    credit.build_credit_source(path, now_ms=now_ms)
    return {credit.credit_profile.name: path}


def _nba(folder: Path, now_ms: int) -> dict[str, Path]:
    return offers.build_offer_sources(folder, now_ms=now_ms)


SOURCES: dict[str, Callable[[Path, int], dict[str, Path]]] = {
    "churn": _churn,
    "propensity": _propensity,
    "credit": _credit,
    "nba": _nba,
}
VIEWS: dict[str, tuple[View, ...]] = {
    "churn": (telco.churn_profile,),
    "propensity": (caravan.caravan_profile,),
    "credit": (credit.credit_profile,),
    "nba": offers.VIEWS,
}


def demo_store(folder: Path, *models: str, now_ms: int = NOW_MS) -> OfflineStore:
    """Build these models' sources below *folder* and ingest them."""
    store = OfflineStore(folder / "offline")
    for model in models:
        paths = SOURCES[model](folder, now_ms)
        for view in VIEWS[model]:
            ingest(view, store, paths[view.name], now_ms=now_ms)
    return store
