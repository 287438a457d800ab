"""What is known of a customer, of an offer, and of an offer that a customer was shown."""

from lib.columns import DAY_MS, DEVICES, OFFER, OFFER_KINDS, SUBSCRIBER, TIMES
from turnout.define import Feature, Source, View

nba_customer = View(
    name="nba_customer",
    entities=(SUBSCRIBER,),
    ttl_ms=90 * DAY_MS,
    features=(
        Feature(name="gigabytes", default=0.0, bounds=(0.0, 10_000.0)),
        Feature(name="spend", default=30.0, bounds=(0.0, 10_000.0)),
        Feature(name="months", default=0.0, bounds=(0.0, 1_200.0)),
        Feature(name="device", dtype="category", dictionary=DEVICES, default=4.0),
    ),
    transform="SELECT * FROM source",
    source_schema=(
        (SUBSCRIBER, "VARCHAR"),
        *TIMES,
        ("gigabytes", "DOUBLE"),
        ("spend", "DOUBLE"),
        ("months", "BIGINT"),
        ("device", "VARCHAR"),
    ),
    source=Source.files(
        "data/nba_customer.parquet", time="event_time_ms", created="created_ms", unit="ms"
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
        Feature(name="kind", dtype="category", dictionary=OFFER_KINDS, default=5.0),
        Feature(name="discount", default=0.0, bounds=(0.0, 1.0)),
    ),
    transform="SELECT * FROM source",
    source_schema=(
        (OFFER, "VARCHAR"),
        *TIMES,
        ("price", "DOUBLE"),
        ("gigabytes", "DOUBLE"),
        ("kind", "VARCHAR"),
        ("discount", "DOUBLE"),
    ),
    source=Source.files(
        "data/nba_offer.parquet", time="event_time_ms", created="created_ms", unit="ms"
    ),
)
"""Features of an offer, keyed by offer."""

nba_history = View(
    name="nba_history",
    entities=(SUBSCRIBER, OFFER),
    ttl_ms=90 * DAY_MS,
    features=(
        Feature(name="shown", default=0.0, bounds=(0.0, 10_000.0)),
        Feature(name="days_since_shown", default=-1.0, bounds=(0.0, 3_650.0)),
    ),
    transform="SELECT * FROM source",
    source_schema=(
        (SUBSCRIBER, "VARCHAR"),
        (OFFER, "VARCHAR"),
        *TIMES,
        ("shown", "BIGINT"),
        ("days_since_shown", "DOUBLE"),
    ),
    source=Source.files(
        "data/nba_history.parquet", time="event_time_ms", created="created_ms", unit="ms"
    ),
)
"""How often the customer was shown the offer, keyed by subscriber and offer, in this order."""
