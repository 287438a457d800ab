"""All pairs of 400 customers and 20 offers, and whether the customer took the offer."""

from lib.columns import OFFER, SUBSCRIBER
from turnout.define import Labels, Source

taken = Labels(
    name="taken",
    entities=(SUBSCRIBER, OFFER),
    source=Source.files("data/taken.parquet", time="asked_ms", unit="ms"),
    value="taken",
)
