"""The 5,822 real customers, of whom 6 % bought the caravan policy."""

from lib.columns import SUBSCRIBER
from turnout.define import Labels, Source

bought = Labels(
    name="bought",
    entities=(SUBSCRIBER,),
    source=Source.files("data/bought.parquet", time="asked_ms", unit="ms"),
    value="bought",
)
