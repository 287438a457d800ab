"""What an insurer knows of a customer: 85 features, in the order and with the codes of the table.

43 are about the customer's neighbourhood (m...), 21 about payments for policies (p...) and 21 about
numbers of policies (a...). All are ordinal.
"""

from lib.columns import DAY_MS, SUBSCRIBER, TIMES
from turnout.define import Feature, Source, View

_NEIGHBOURHOOD = (  # noqa: SIM905  a list of 43 names would take 43 lines
    "mostype maanthui mgemomv mgemleef moshoofd mgodrk mgodpr mgodov mgodge mrelge mrelsa mrelov "
    "mfalleen mfgekind mfwekind moplhoog moplmidd mopllaag mberhoog mberzelf mberboer mbermidd "
    "mberarbg mberarbo mska mskb1 mskb2 mskc mskd mhhuur mhkoop maut1 maut2 maut0 mzfonds mzpart "
    "minkm30 mink3045 mink4575 mink7512 mink123m minkgem mkoopkla"
).split()
_POLICIES = (  # noqa: SIM905
    "wapart wabedr waland persaut besaut motsco vraaut aanhang tractor werkt brom leven persong "
    "gezong waoreg brand zeilpl plezier fiets inboed bystand"
).split()
_NAMES = (*_NEIGHBOURHOOD, *(f"p{name}" for name in _POLICIES), *(f"a{name}" for name in _POLICIES))

caravan_profile = View(
    name="caravan_profile",
    entities=(SUBSCRIBER,),
    ttl_ms=90 * DAY_MS,
    features=tuple(Feature(name=name, bounds=(0.0, 100.0)) for name in _NAMES),
    transform="SELECT * FROM source",
    source_schema=(
        (SUBSCRIBER, "VARCHAR"),
        *TIMES,
        *((name, "BIGINT") for name in _NAMES),
    ),
    source=Source.files(
        "data/caravan_profile.parquet", time="event_time_ms", created="created_ms", unit="ms"
    ),
)
