"""The 4,454 real loans, of which 28 % went bad."""

from lib.columns import SUBSCRIBER
from turnout.define import Labels, Source

bad = Labels(
    name="bad",
    entities=(SUBSCRIBER,),
    source=Source.files("data/bad.parquet", time="asked_ms", unit="ms"),
    value="bad",
)
