"""The 7,043 real customers, under the id of the first clone; 26.5 % of them left."""

from lib.columns import SUBSCRIBER
from turnout.define import Labels, Source

churned = Labels(
    name="churned",
    entities=(SUBSCRIBER,),
    source=Source.files("data/churned.parquet", time="asked_ms", unit="ms"),
    value="churned",
)
