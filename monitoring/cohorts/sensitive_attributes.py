"""Sensitive attributes of customers, read from the online store inside of a job and nowhere kept.

They are the newest values of the views that the policy names as sensitive. A category is an
attribute; a number has no groups. Who has no row, or one that is too old, is of the group
"unknown".
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from features.entity_ids import id_hashes, join_ids
from features.online.store_users import READER
from features.rows import DEFAULTED, ViewRows, unpack_valid
from features.views import View
from monitoring.errors import MonitoringError
from stats.fairness.groups import DeclaredAttribute

if TYPE_CHECKING:
    from features.writes.row_scripts import StoreClient

READ_S = 10.0
"""Seconds that one read may take."""
IDS_AT_ONCE = 1_000
"""Rows that are read by one command."""


class AttributesUnknownError(MonitoringError):
    """The groups of customers cannot be known. The text says why, for a figure."""


class StoreSilentError(AttributesUnknownError):
    """The online store does not answer. It may, a day later."""


@dataclass(frozen=True, eq=False, slots=True)
class SensitiveView:
    """What a view says of N customers.

    attributes  of its categories, with the names of the view and the feature.
    numbers     names of its features that are numbers, which have no groups.
    """

    attributes: tuple[DeclaredAttribute, ...]
    numbers: tuple[str, ...] = ()


class AttributeSource(Protocol):
    """Where sensitive attributes are read."""

    def read_view(self, view: str, entity: str, customers: Sequence[str]) -> SensitiveView:
        """Return what a view says of the customers, each an id of *entity*.

        Raises AttributesUnknownError when it cannot be read.
        """
        ...


class RowClient(Protocol):
    """The commands of a store's client that are used; features.online.store_client has them."""

    @property
    def namespace(self) -> str:
        """What stands in every key."""
        ...

    def mget(self, keys: Sequence[bytes]) -> object:
        """Return the values of keys, None for an absent one."""
        ...


@dataclass(frozen=True, slots=True)
class OnlineStoreAddress:
    """Where the online store is.

    url        redis:// or unix:// URL.
    passwords  folder with the passwords of its users, of a store of `turnout up`; empty: the URL
               has all that is needed.
    """

    url: str
    passwords: str = ""

    def open(self) -> "StoreClient":
        """Return a client that only reads, and gives up after READ_S. Close it after use."""
        from features.online.store_client import store_client  # redis-py takes long to import

        user = READER if self.passwords else ""
        return store_client(self.url, user, self.passwords, timeout_s=READ_S)


def given_store(url: str, passwords: str) -> OnlineStoreAddress | None:
    """Return the store that a command line names; None: it names none."""
    return OnlineStoreAddress(url, passwords) if url else None


class OnlineAttributes:
    """Reads sensitive views in the online store (AttributeSource).

    open_client  opens a connection to the store, for one job.
    view_of      returns a view of the applied projects by its name; None: there is none.
    """

    def __init__(
        self,
        open_client: Callable[[], AbstractContextManager[RowClient]],
        view_of: Callable[[str], View | None],
    ) -> None:
        self._open_client = open_client
        self._view_of = view_of

    def read_view(self, view: str, entity: str, customers: Sequence[str]) -> SensitiveView:
        """Return what a view says of the customers (see AttributeSource)."""
        from redis.exceptions import RedisError  # redis-py takes long to import

        # The view must be there, and be of these customers.
        definition = self._view_of(view)
        if definition is None:
            raise AttributesUnknownError(
                f"no applied project has the view {view!r}, so nobody knows the groups"
            )
        if tuple(definition.entities) != (entity,):
            raise AttributesUnknownError(
                f"the view {view!r} is of {', '.join(definition.entities)}, and customers are "
                f"known by {entity}"
            )
        try:
            values, valid = self._read_rows(definition, customers)
        except (RedisError, OSError) as error:
            raise StoreSilentError(
                f"not enough data: the online store does not answer, so nobody knows the groups "
                f"({type(error).__name__})"
            ) from error
        # Each category is an attribute; an unknown text and a missing value have the code -1.
        attributes, numbers = [], []
        for column, feature in enumerate(definition.features):
            name = f"{view}:{feature.name}"
            if not feature.dictionary:
                numbers.append(name)
                continue
            codes = np.where(valid[:, column], np.nan_to_num(values[:, column], nan=-1.0), -1.0)
            inside = (codes >= 0) & (codes < len(feature.dictionary))
            found = np.where(inside, codes, -1).astype(np.int64)
            attributes.append(DeclaredAttribute(name, found, feature.dictionary))
        return SensitiveView(tuple(attributes), tuple(numbers))

    def _read_rows(
        self, view: View, customers: Sequence[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return values (N, F) and which of them are known (N, F)."""
        values = np.zeros((len(customers), len(view.features)), dtype=np.float32)
        valid = np.zeros(values.shape, dtype=np.bool_)
        now_ms = time.time_ns() // 10**6
        with self._open_client() as client:
            rows = ViewRows(view, client.namespace)
            for start in range(0, len(customers), IDS_AT_ONCE):
                ids = [join_ids([item.encode()]) for item in customers[start : start + IDS_AT_ONCE]]
                replies = client.mget(rows.store_keys(ids))
                assert isinstance(replies, list)
                decoded = rows.decode(replies, id_hashes(ids), now_ms)
                part = slice(start, start + len(ids))
                values[part] = decoded.values
                valid[part] = (decoded.flags == 0)[:, np.newaxis]
                # A row of which only some values are missing says which.
                for row in np.flatnonzero(decoded.flags == DEFAULTED).tolist():
                    _, words, _ = rows.unpack([replies[row]])
                    valid[start + row] = unpack_valid(words, rows.width)[0]
        return values, valid
