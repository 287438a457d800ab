"""The declared views, and their online rows, which are read exactly as a gateway reads them."""

from collections.abc import Sequence

from features.entity_ids import check_entity_id, id_hashes
from features.online.reader import OnlineReader
from features.online.store_url import parse_store_url
from features.rows import DecodedRows, ViewRows
from features.sources import telco
from features.views import View
from turnout.errors import OperatorError

DECLARED_VIEWS: tuple[View, ...] = (telco.churn_profile,)
"""The views of this installation. Declare a new view in features/ and list it here."""

READ_S_MAX = 2.0
DAY_MS = 86_400_000


def declared_view(name: str) -> View:
    """Return the declared view called *name*; OperatorError when there is none."""
    for view in DECLARED_VIEWS:
        if view.name == name:
            return view
    raise OperatorError(
        f"no view is called {name!r}; there are {', '.join(view.name for view in DECLARED_VIEWS)}"
    )


async def read_online_rows(url: str, view: View, keys: Sequence[str], now_ms: int) -> DecodedRows:
    """Return the online rows of *keys* from the store at *url*, in their order.

    now_ms  Unix ms; the row flags say how fresh a row is at this moment.

    Raises OnlineStoreError when the store does not answer within 2 s.
    """
    layout = ViewRows(view, parse_store_url(url).namespace)
    ids = [check_entity_id(key) for key in keys]
    reader = OnlineReader(url)
    await reader.start()
    try:
        replies = await reader.mget(layout.store_keys(ids), READ_S_MAX)
    finally:
        await reader.close()
    return layout.decode(replies, id_hashes(ids), now_ms)
