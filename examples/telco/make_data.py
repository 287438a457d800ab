"""Writes the tables of this project to `data/`, as Parquet files: `python make_data.py`.

Churn, credit and propensity are public tables of real customers, whose rows are cloned to as many
subscribers as wanted. The offers of nba are simulated, by a rule that lib/offers.py states.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from lib.offers import offer_tables
from lib.public_tables import (
    Columns,
    TableError,
    clone_and_date,
    labels,
    read_public_table,
    write_parquet,
)
from lib.telco_table import churn_profile_rows

MODELS = ("churn", "credit", "propensity", "nba")


def tables_of(model: str, options: argparse.Namespace) -> Iterator[tuple[str, Columns]]:
    """Yield (name of the file, columns) of each table of *model*. Raises TableError."""
    now_ms, subscribers = options.now_ms, options.subscribers
    if model == "nba":
        yield from offer_tables(now_ms).items()
    elif model == "churn":
        real = read_public_table("modeldata", "wa_churn", 7_043)
        churned = real.pop("churn") == "Yes"
        rows = churn_profile_rows(
            real, now_ms=now_ms, subscribers=subscribers, history_rows=options.history_rows
        )
        yield "churn_profile", rows
        yield "churned", labels("churned", churned, now_ms)
    elif model == "credit":
        real = read_public_table("modeldata", "credit_data", 4_454)
        bad = real.pop("status") == "bad"
        rows = clone_and_date(real, subscribers=subscribers, now_ms=now_ms, seed=2)
        yield "credit_profile", rows
        yield "bad", labels("bad", bad, now_ms)
    else:
        real = read_public_table("ISLR", "Caravan", 5_822)
        bought = real.pop("purchase") == "Yes"
        rows = clone_and_date(real, subscribers=subscribers, now_ms=now_ms, seed=1)
        yield "caravan_profile", rows
        yield "bought", labels("bought", bought, now_ms)


def main() -> int:
    """Write the tables; return 1 when a public table is not there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help=f"of {', '.join(MODELS)}; default: all")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data")
    parser.add_argument("--subscribers", type=int, default=10_000)
    parser.add_argument(
        "--history-rows", type=int, default=1_000, help="subscribers with an older row as well"
    )
    parser.add_argument(
        "--now-ms", type=int, default=time.time_ns() // 1_000_000, help="the present, Unix ms"
    )
    options = parser.parse_args()
    if unknown := sorted(set(options.models) - set(MODELS)):
        parser.error(f"{unknown} is no model; the models are {', '.join(MODELS)}")
    try:
        for model in options.models or MODELS:
            for name, columns in tables_of(model, options):
                rows = write_parquet(options.out / f"{name}.parquet", columns)
                sys.stdout.write(f"{name}.parquet: {rows:,} rows\n")
    except TableError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
