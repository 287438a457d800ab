"""What is known of a customer's loan: 13 features, with the codes of the table."""

from lib.columns import DAY_MS, SUBSCRIBER, TIMES, category
from turnout.define import Feature, Source, View

credit_profile = View(
    name="credit_profile",
    entities=(SUBSCRIBER,),
    ttl_ms=90 * DAY_MS,
    features=(
        Feature(name="seniority", bounds=(0.0, 80.0)),
        category("home", "ignore", "other", "owner", "parents", "priv", "rent"),
        Feature(name="time", default=48.0, bounds=(1.0, 120.0)),
        Feature(name="age", default=36.0, bounds=(16.0, 120.0)),
        category("marital", "divorced", "married", "separated", "single", "widow"),
        category("records", "no", "yes"),
        category("job", "fixed", "freelance", "others", "partime"),
        Feature(name="expenses", default=51.0, bounds=(0.0, 10_000.0)),
        # The default is below every real income, so that a tree can split off missing incomes.
        Feature(name="income", default=-1.0, bounds=(0.0, 100_000.0)),
        Feature(name="assets", default=-1.0, bounds=(0.0, 10_000_000.0)),
        Feature(name="debt", default=-1.0, bounds=(0.0, 10_000_000.0)),
        Feature(name="amount", default=1_000.0, bounds=(0.0, 1_000_000.0)),
        Feature(name="price", default=1_400.0, bounds=(0.0, 1_000_000.0)),
    ),
    transform="SELECT * FROM source",
    source_schema=(
        (SUBSCRIBER, "VARCHAR"),
        *TIMES,
        ("seniority", "BIGINT"),
        ("home", "VARCHAR"),
        ("time", "BIGINT"),
        ("age", "BIGINT"),
        ("marital", "VARCHAR"),
        ("records", "VARCHAR"),
        ("job", "VARCHAR"),
        ("expenses", "BIGINT"),
        ("income", "DOUBLE"),
        ("assets", "DOUBLE"),
        ("debt", "DOUBLE"),
        ("amount", "BIGINT"),
        ("price", "BIGINT"),
    ),
    source=Source.files(
        "data/credit_profile.parquet", time="event_time_ms", created="created_ms", unit="ms"
    ),
)
