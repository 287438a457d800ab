"""What is known of a customer who may leave: 19 features, with codes and bounds of the table."""

from lib.columns import DAY_MS, SUBSCRIBER, TIMES, category
from turnout.define import Feature, Source, View

_ADD_ON = ("No", "No internet service", "Yes")


def _flag(name: str) -> Feature:
    return Feature(name=name, bounds=(0.0, 1.0))


churn_profile = View(
    name="churn_profile",
    entities=(SUBSCRIBER,),
    ttl_ms=90 * DAY_MS,
    features=(
        _flag("female"),
        _flag("senior_citizen"),
        _flag("partner"),
        _flag("dependents"),
        Feature(name="tenure", default=29.0, bounds=(0.0, 1_200.0)),
        _flag("phone_service"),
        category("multiple_lines", "No", "No phone service", "Yes"),
        category("internet_service", "DSL", "Fiber optic", "No"),
        category("online_security", *_ADD_ON),
        category("online_backup", *_ADD_ON),
        category("device_protection", *_ADD_ON),
        category("tech_support", *_ADD_ON),
        category("streaming_tv", *_ADD_ON),
        category("streaming_movies", *_ADD_ON),
        category("contract", "Month-to-month", "One year", "Two year"),
        _flag("paperless_billing"),
        category(
            "payment_method",
            "Bank transfer (automatic)",
            "Credit card (automatic)",
            "Electronic check",
            "Mailed check",
        ),
        Feature(name="monthly_charges", default=70.35, bounds=(0.0, 10_000.0)),
        # 11 customers in their first month have no total yet. The default is the median.
        Feature(name="total_charges", default=1397.475, bounds=(0.0, 1_000_000.0)),
    ),
    transform="SELECT * FROM source",
    source_schema=(
        (SUBSCRIBER, "VARCHAR"),
        *TIMES,
        ("female", "BIGINT"),
        ("senior_citizen", "BIGINT"),
        ("partner", "BIGINT"),
        ("dependents", "BIGINT"),
        ("tenure", "BIGINT"),
        ("phone_service", "BIGINT"),
        ("multiple_lines", "VARCHAR"),
        ("internet_service", "VARCHAR"),
        ("online_security", "VARCHAR"),
        ("online_backup", "VARCHAR"),
        ("device_protection", "VARCHAR"),
        ("tech_support", "VARCHAR"),
        ("streaming_tv", "VARCHAR"),
        ("streaming_movies", "VARCHAR"),
        ("contract", "VARCHAR"),
        ("paperless_billing", "BIGINT"),
        ("payment_method", "VARCHAR"),
        ("monthly_charges", "DOUBLE"),
        ("total_charges", "DOUBLE"),
    ),
    source=Source.files(
        "data/churn_profile.parquet", time="event_time_ms", created="created_ms", unit="ms"
    ),
)
