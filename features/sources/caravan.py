"""Insurance propensity on real data: the CoIL 2000 caravan table, 5,822 customers of an insurer.

It has 85 ordinal columns: 43 about the customer's neighbourhood (M...), 21 about payments for
policies (P...) and 21 about numbers of policies (A...). 348 customers (6 %) bought the caravan
policy.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.sources.public_tables import (
    DAY_MS,
    ENTITY,
    clone_and_date,
    read_public_table,
    subscriber_ids,
    write_parquet,
)
from features.views import Feature, View

REAL_ROWS = 5_822

_NEIGHBOURHOOD = (  # noqa: SIM905  a list of 43 names would take 43 lines
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
"""85 features of a subscriber, in the order and with the codes of the table."""


@dataclass(frozen=True, slots=True)
class CaravanLabels:
    """One label for each of the 5,822 real customers."""

    subscribers: list[str]
    """(5822,) ids from S0000001 on."""
    as_of_ms: NDArray[np.int64]
    """(5822,) instants, all equal to `now_ms`."""
    bought: NDArray[np.bool_]
    """(5822,) True for customers who bought the policy."""


def build_caravan_source(
    path: Path, *, now_ms: int, subscribers: int = REAL_ROWS, seed: int = 1
) -> int:
    """Write the Parquet file that caravan_profile's transform reads; return its number of rows.

    Arguments as in public_tables.clone_and_date. Raises SourceError when the `data` extra is not
    installed.
    """
    real = read_public_table("ISLR", "Caravan", REAL_ROWS)
    columns = {name.lower(): column for name, column in real.items() if name != "Purchase"}
    table = clone_and_date(
        columns, rows=REAL_ROWS, subscribers=subscribers, now_ms=now_ms, seed=seed
    )
    return write_parquet(path, table)


def caravan_labels(*, now_ms: int) -> CaravanLabels:
    """Return the labels as of *now_ms*, which must be the one given to `build_caravan_source`.

    Raises SourceError when the `data` extra is not installed.
    """
    bought = np.asarray(read_public_table("ISLR", "Caravan", REAL_ROWS)["Purchase"] == "Yes")
    instants = np.full(REAL_ROWS, now_ms, dtype=np.int64)
    return CaravanLabels(subscriber_ids(REAL_ROWS), instants, bought.astype(np.bool_))
