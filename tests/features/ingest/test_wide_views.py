"""A view of many features is encoded by slices, and gives the rows that one statement would."""

from dataclasses import replace
from pathlib import Path

import pytest

from features.expectations import Expect
from features.ingest import load as load_module
from features.offline import OfflineStore
from features.source import Source
from features.views import Feature, View
from tests.features.ingest.loads import NOW_MS, TIME_MS, load
from tests.features.small_views import DAY_MS

pytestmark = pytest.mark.walk

WIDTH = load_module.FEATURES_AT_ONCE + 70
"""The last slice is not full."""
ROWS = 5_000
"""More than DuckDB has in one vector, and a row group."""
NAMES = [f"x{number}" for number in range(WIDTH)]
VIEW = View(
    name="wide",
    entities=("subscriber",),
    features=tuple(
        Feature(name=name, dtype="category", dictionary=("a", "b"), default=0.0)
        if number % 5 == 0
        else Feature(name=name, default=-1.0, bounds=(0.0, 900.0))
        for number, name in enumerate(NAMES)
    ),
    ttl_ms=400 * DAY_MS,
    transform=f"SELECT subscriber, event_time_ms, {', '.join(NAMES)} FROM source",
    source=Source.frame(time="t", zone="UTC"),
    expect={"x1": Expect(low=5.0, on_breach="quarantine")},
)
COLUMNS = ", ".join(
    f"['a', 'b', 'c', NULL][1 + (hash(i + {number}) % 4)::INT] AS {name}"
    if number % 5 == 0
    else f"CASE WHEN hash(i + {number}) % 7 > 0 THEN hash(i * {number}) % 1000 END AS {name}"
    for number, name in enumerate(NAMES)
)
TABLE = (
    f"SELECT 'S' || i % 1700 AS subscriber, make_timestamp_ms({TIME_MS} - i * 2_000_000) AS t, "
    f"{COLUMNS} FROM range({ROWS}) r(i)"
)


def test_slices_give_the_rows_of_one_statement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where rows were set aside, and for every row of an entity."""
    sliced = load(tmp_path / "sliced", VIEW, TABLE)
    monkeypatch.setattr(load_module, "FEATURES_AT_ONCE", WIDTH)
    whole = load(tmp_path / "whole", VIEW, TABLE)
    assert 0 < sliced.quarantined < ROWS
    assert replace(sliced, path=None, quarantine=None, digest="") == replace(
        whole, path=None, quarantine=None, digest=""
    )
    ids = [f"S{number}" for number in range(1_700)]
    ours, expected = (
        OfflineStore(tmp_path / name / "store").history(VIEW, ids) for name in ("sliced", "whole")
    )
    assert len(ours.ids) == sliced.rows == ROWS - sliced.quarantined
    assert ours.ids.tolist() == expected.ids.tolist()
    assert ours.known_ms.tolist() == expected.known_ms.tolist() == [NOW_MS] * len(ours.ids)
    assert ours.values.tobytes() == expected.values.tobytes()
