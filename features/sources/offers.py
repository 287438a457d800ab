"""Next best action on simulated data: customers, offers, and which offers were taken.

The model answers "will this customer take this offer?" from three views: one keyed by the
customer, one by the offer, one by both. The data follows the rule below, so that a test can compute
what a model ought to learn.

A customer has gigabytes used g ~ Gamma(2, 8), monthly spend s ~ U(5, 60), months of membership
t ~ U(0, 120), and a device: basic, smart or 5g (.2, .5, .3). An offer has a price p ~ U(2, 40),
gigabytes q ~ U(1, 60), a kind (data, roaming, device, content) and a discount d ~ U(0, .5). A pair
of both has the times shown in 90 days n ~ Poisson(1.5) and the days since it was last shown, which
is missing when n = 0. The customer takes the offer with probability sigmoid(z),

    z = -.4 + 1.6 min(q, g) / (1 + g) - .09 max(p (1 - d) - s / 3, 0) - .35 n
        + .8 [device = 5g and kind = data] - .6 [device = basic and kind = content] + .004 t
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.sources.public_tables import (
    DAY_MS,
    ENTITY,
    LOAD_DELAY_MS,
    Columns,
    subscriber_ids,
    write_parquet,
)
from features.views import Feature, View

OFFER = "offer"
CUSTOMERS = 400
OFFERS = 20
DEVICES = ("basic", "smart", "5g")
KINDS = ("data", "roaming", "device", "content")

_TIMES = (("event_time_ms", "BIGINT"), ("created_ms", "BIGINT"))

nba_customer = View(
    name="nba_customer",
    entities=(ENTITY,),
    ttl_ms=90 * DAY_MS,
    features=(
        Feature(name="gigabytes", default=0.0, bounds=(0.0, 10_000.0)),
        Feature(name="spend", default=30.0, bounds=(0.0, 10_000.0)),
        Feature(name="months", default=0.0, bounds=(0.0, 1_200.0)),
        Feature(name="device", dtype="category", dictionary=DEVICES, default=4.0),
    ),
    transform="SELECT * FROM source",
    source_schema=(
        (ENTITY, "VARCHAR"),
        *_TIMES,
        ("gigabytes", "DOUBLE"),
        ("spend", "DOUBLE"),
        ("months", "BIGINT"),
        ("device", "VARCHAR"),
    ),
)
"""Features of a customer, keyed by subscriber."""

nba_offer = View(
    name="nba_offer",
    entities=(OFFER,),
    ttl_ms=365 * DAY_MS,
    features=(
        Feature(name="price", default=20.0, bounds=(0.0, 10_000.0)),
        Feature(name="gigabytes", default=0.0, bounds=(0.0, 10_000.0)),
        Feature(name="kind", dtype="category", dictionary=KINDS, default=5.0),
        Feature(name="discount", default=0.0, bounds=(0.0, 1.0)),
    ),
    transform="SELECT * FROM source",
    source_schema=(
        (OFFER, "VARCHAR"),
        *_TIMES,
        ("price", "DOUBLE"),
        ("gigabytes", "DOUBLE"),
        ("kind", "VARCHAR"),
        ("discount", "DOUBLE"),
    ),
)
"""Features of an offer, keyed by offer."""

nba_history = View(
    name="nba_history",
    entities=(ENTITY, OFFER),
    ttl_ms=90 * DAY_MS,
    features=(
        Feature(name="shown", default=0.0, bounds=(0.0, 10_000.0)),
        Feature(name="days_since_shown", default=-1.0, bounds=(0.0, 3_650.0)),
    ),
    transform="SELECT * FROM source",
    source_schema=(
        (ENTITY, "VARCHAR"),
        (OFFER, "VARCHAR"),
        *_TIMES,
        ("shown", "BIGINT"),
        ("days_since_shown", "DOUBLE"),
    ),
)
"""How often the customer was shown the offer, keyed by subscriber and offer, in this order."""

VIEWS = (nba_customer, nba_offer, nba_history)


@dataclass(frozen=True, slots=True)
class OfferLabels:
    """One label for each pair of customer and offer: N = customers x offers, by customer."""

    subscribers: list[str]
    """(N,) ids of the customers."""
    offers: list[str]
    """(N,) ids of the offers."""
    as_of_ms: NDArray[np.int64]
    """(N,) instants, all equal to `now_ms`."""
    taken: NDArray[np.bool_]
    """(N,) True where the customer took the offer."""


def offer_ids(count: int) -> list[str]:
    """Return the ids of *count* offers: O001, O002, and so on."""
    return [f"O{number + 1:03d}" for number in range(count)]


def build_offer_sources(
    folder: Path,
    *,
    now_ms: int,
    customers: int = CUSTOMERS,
    offers: int = OFFERS,
    seed: int = 3,
) -> dict[str, Path]:
    """Write the source of each view to `<view>.parquet` in *folder*; return the paths by view.

    now_ms  the present, Unix ms. Rows are 1 to 20 days old, and became known 6 hours after.
    """
    # Give each table the ids of its rows.
    customer_columns, offer_columns, pairs = draw_tables(customers, offers, seed)
    subscribers, names = subscriber_ids(customers), offer_ids(offers)
    tables: dict[str, Columns] = {
        nba_customer.name: {ENTITY: _texts(subscribers), **customer_columns},
        nba_offer.name: {OFFER: _texts(names), **offer_columns},
        nba_history.name: {
            ENTITY: _texts([subscriber for subscriber in subscribers for _ in names]),
            OFFER: _texts(names * customers),
            **pairs,
        },
    }
    # Add the times and write the files.
    paths = {}
    for name, columns in tables.items():
        rows = len(next(iter(columns.values())))
        event_ms = now_ms - (np.arange(rows, dtype=np.int64) % 20 + 1) * DAY_MS
        times = {"event_time_ms": event_ms, "created_ms": event_ms + LOAD_DELAY_MS}
        paths[name] = folder / f"{name}.parquet"
        write_parquet(paths[name], {**columns, **times})
    return paths


def offer_labels(
    *, now_ms: int, customers: int = CUSTOMERS, offers: int = OFFERS, seed: int = 3
) -> OfferLabels:
    """Return the labels that fit `build_offer_sources` with the same seed and sizes."""
    probabilities = taking_probability(*draw_tables(customers, offers, seed))
    draws = np.random.default_rng([seed, 1]).random(len(probabilities))
    subscribers, names = subscriber_ids(customers), offer_ids(offers)
    return OfferLabels(
        [subscriber for subscriber in subscribers for _ in names],
        names * customers,
        np.full(len(probabilities), now_ms, dtype=np.int64),
        draws < probabilities,
    )


def taking_probability(
    customer_columns: Columns, offer_columns: Columns, pairs: Columns
) -> NDArray[np.float64]:
    """Return the rule's probability for each pair, (N,), ordered by customer."""
    # Repeat the columns of customers and offers, so that each pair has a row.
    customers, offers = len(customer_columns["spend"]), len(offer_columns["price"])
    of_customer = {name: np.repeat(column, offers) for name, column in customer_columns.items()}
    of_offer = {name: np.tile(column, customers) for name, column in offer_columns.items()}
    used, quota = of_customer["gigabytes"], of_offer["gigabytes"]
    device, kind = of_customer["device"], of_offer["kind"]
    to_pay = of_offer["price"] * (1 - of_offer["discount"]) - of_customer["spend"] / 3
    # The rule of the module's docstring.
    z = (
        -0.4
        + 1.6 * np.minimum(quota, used) / (1 + used)
        - 0.09 * np.maximum(to_pay, 0)
        - 0.35 * pairs["shown"]
        + 0.8 * ((device == "5g") & (kind == "data"))
        - 0.6 * ((device == "basic") & (kind == "content"))
        + 0.004 * of_customer["months"]
    )
    probability: NDArray[np.float64] = 1 / (1 + np.exp(-z))
    return probability


def draw_tables(customers: int, offers: int, seed: int) -> tuple[Columns, Columns, Columns]:
    """Return the columns of customers, of offers, and of pairs ordered by customer."""
    generator = np.random.default_rng([seed, 0])
    customer_columns = {
        "gigabytes": generator.gamma(2.0, 8.0, customers).round(2),
        "spend": generator.uniform(5, 60, customers).round(2),
        "months": generator.integers(0, 120, customers),
        "device": _texts(generator.choice(DEVICES, customers, p=(0.2, 0.5, 0.3)).tolist()),
    }
    offer_columns = {
        "price": generator.uniform(2, 40, offers).round(2),
        "gigabytes": generator.uniform(1, 60, offers).round(1),
        "kind": _texts([KINDS[number % len(KINDS)] for number in range(offers)]),
        "discount": generator.uniform(0, 0.5, offers).round(2),
    }
    shown = generator.poisson(1.5, customers * offers)
    days = generator.integers(1, 90, customers * offers).astype(np.float64)
    pairs = {"shown": shown, "days_since_shown": np.where(shown > 0, days, np.nan)}
    return customer_columns, offer_columns, pairs


def _texts(texts: list[str]) -> NDArray[Any]:
    return np.array(texts, dtype=object)
