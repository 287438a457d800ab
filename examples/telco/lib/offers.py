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

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.columns import DAY_MS, DEVICES, OFFER, OFFER_KINDS, SUBSCRIBER
from lib.public_tables import LOAD_DELAY_MS, Columns, subscriber_ids

CUSTOMERS = 400
OFFERS = 20
SEED = 3


def offer_tables(now_ms: int) -> dict[str, Columns]:
    """Return the rows of the three views and of the labels, by the name of their file.

    now_ms  the present, Unix ms. Rows are 1 to 20 days old, and became known 6 hours after. The
            labels are asked now: N = customers x offers, ordered by customer.
    """
    # Give each table the ids of its rows.
    customer_columns, offer_columns, pairs = draw_tables(CUSTOMERS, OFFERS, SEED)
    subscribers = subscriber_ids(CUSTOMERS)
    names = [f"O{number + 1:03d}" for number in range(OFFERS)]
    pair_ids = {
        SUBSCRIBER: _texts([subscriber for subscriber in subscribers for _ in names]),
        OFFER: _texts(names * CUSTOMERS),
    }
    tables: dict[str, Columns] = {
        "nba_customer": {SUBSCRIBER: _texts(subscribers), **customer_columns},
        "nba_offer": {OFFER: _texts(names), **offer_columns},
        "nba_history": {**pair_ids, **pairs},
    }
    # Add the times.
    for name, columns in tables.items():
        rows = len(next(iter(columns.values())))
        event_ms = now_ms - (np.arange(rows, dtype=np.int64) % 20 + 1) * DAY_MS
        times = {"event_time_ms": event_ms, "created_ms": event_ms + LOAD_DELAY_MS}
        tables[name] = {**columns, **times}
    # Draw who takes which offer.
    probabilities = taking_probability(customer_columns, offer_columns, pairs)
    draws = np.random.default_rng([SEED, 1]).random(len(probabilities))
    asked_ms = np.full(len(probabilities), now_ms, dtype=np.int64)
    tables["taken"] = {**pair_ids, "asked_ms": asked_ms, "taken": draws < probabilities}
    return tables


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
        "kind": _texts([OFFER_KINDS[number % len(OFFER_KINDS)] for number in range(offers)]),
        "discount": generator.uniform(0, 0.5, offers).round(2),
    }
    shown = generator.poisson(1.5, customers * offers)
    days = generator.integers(1, 90, customers * offers).astype(np.float64)
    pairs = {"shown": shown, "days_since_shown": np.where(shown > 0, days, np.nan)}
    return customer_columns, offer_columns, pairs


def _texts(texts: list[str]) -> NDArray[Any]:
    return np.array(texts, dtype=object)
