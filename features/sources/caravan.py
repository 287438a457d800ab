"""Insurance propensity on real data: the CoIL 2000 caravan table, 5,822 customers of 1 insurer.

85 columns, all ordinal: 43 of the customer's neighbourhood (M...), 21 of what they pay for
policies (P...) and 21 of how many they hold (A...). 348 of 5,822 (6 %) bought the caravan policy.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.sources.public_tables import clone_and_date, read_public_table, write_parquet
from features.sources.telco import DAY_MS, ENTITY, subscriber_ids
from features.views import Feature, View

REAL_ROWS = 5_822

_NEIGHBOURHOOD = (  # noqa: SIM905  a list of 43 names is one line a name
    "mostype maanthui mgemomv mgemleef moshoofd mgodrk mgodpr mgodov mgodge mrelge mrelsa mrelov "
    "mfalleen mfgekind mfwekind moplhoog moplmidd mopllaag mberhoog mberzelf mberboer mbermidd "
    "mberarbg mberarbo mska mskb1 mskb2 mskc mskd mhhuur mhkoop maut1 maut2 maut0 mzfonds mzpart "
    "minkm30 mink3045 mink4575 mink7512 mink123m minkgem mkoopkla"
).split()
_POLICIES = (  # noqa: SIM905
    "wapart wabedr waland persaut besaut motsco vraaut aanhang tractor werkt brom leven persong "
    "gezong waoreg brand zeilpl plezier fiets inboed bystand"
).split()
_NAMES = (*_NEIGHBOURHOOD, *(f"p{name}" for name in _POLICIES), *(f"a{name}" for name in _POLICIES))

caravan_profile = View(
    name="caravan_profile",
    entities=(ENTITY,),
    ttl_ms=90 * DAY_MS,
    features=tuple(Feature(name=name, bounds=(0.0, 100.0)) for name in _NAMES),
    transform="SELECT * FROM source",
    source_schema=(
        (ENTITY, "VARCHAR"),
        ("event_time_ms", "BIGINT"),
        ("created_ms", "BIGINT"),
        *((name, "BIGINT") for name in _NAMES),
    ),
)
"""85 features of a subscriber, in the table's own order and codes."""


@dataclass(frozen=True, slots=True)
class CaravanLabels:
    """One label for each real customer."""

    subscribers: list[str]
    """(5822,) ids, S0000001 and on."""
    as_of_ms: NDArray[np.int64]
    """(5822,) all the same instant: `now_ms`."""
    bought: NDArray[np.bool_]
    """(5822,)."""


def build_caravan_source(
    path: Path, *, now_ms: int, subscribers: int = REAL_ROWS, seed: int = 1
) -> int:
    """Write the Parquet file that caravan_profile's transform reads; returns its rows.

    Raises SourceError when the `data` extra is not installed.
    """
    real = read_public_table("ISLR", "Caravan", REAL_ROWS)
    columns = {name.lower(): column for name, column in real.items() if name != "Purchase"}
    dates = clone_and_date(
        columns, rows=REAL_ROWS, subscribers=subscribers, now_ms=now_ms, seed=seed
    )
    return write_parquet(path, dates)


def caravan_labels(*, now_ms: int) -> CaravanLabels:
    """Return who bought, asked as of *now_ms* (give build_source's). Raises SourceError."""
    bought = np.asarray(read_public_table("ISLR", "Caravan", REAL_ROWS)["Purchase"] == "Yes")
    instants = np.full(REAL_ROWS, now_ms, dtype=np.int64)
    return CaravanLabels(subscriber_ids(REAL_ROWS), instants, bought.astype(np.bool_))
