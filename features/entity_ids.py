"""Checks entity ids, joins the ids of a composite, and hashes them."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from features.errors import EntityIdError

BYTES_MAX = 128
SEPARATOR = b"\x1f"
"""Stands between the ids of a composite. It is a control character, which no id may hold."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def check_entity_id(entity_id: str) -> bytes:
    """Return *entity_id* as UTF-8.

    Raises EntityIdError unless it has 1 to 128 bytes and no control characters (C0, DEL, C1).
    The message never repeats the id, which may be a customer's number, because errors are logged.
    """
    try:
        encoded = entity_id.encode()
    except UnicodeEncodeError as error:
        raise EntityIdError(
            f"an entity id has half a character (a lone surrogate) at {error.start}; send UTF-8"
        ) from error
    if not 0 < len(encoded) <= BYTES_MAX:
        raise EntityIdError(
            f"an entity id is {len(encoded)} bytes long; it must be 1 to {BYTES_MAX} bytes of UTF-8"
        )
    # Printable text has no control characters. Nearly every id is printable, and isprintable
    # takes a third of the search's time.
    control = None if entity_id.isprintable() else _CONTROL.search(entity_id)
    if control is not None:
        raise EntityIdError(
            f"an entity id holds control character U+{ord(control[0]):04X} at {control.start()}; "
            "remove it"
        )
    return encoded


def check_entity_ids(entity_ids: Sequence[str]) -> list[bytes] | None:
    """Return every id as UTF-8, or None if `check_entity_id` would raise for any of them.

    All ids are checked together: 64 ids take 8 us, and 40 us one by one. After None, call
    `check_entity_id` on each id for the error.
    """
    joined = "".join(entity_ids)
    if not joined.isprintable() and _CONTROL.search(joined) is not None:
        return None
    try:
        encoded = [entity_id.encode() for entity_id in entity_ids]
    except UnicodeEncodeError:
        return None
    lengths = list(map(len, encoded))
    if lengths and not 0 < min(lengths) <= max(lengths) <= BYTES_MAX:
        return None
    return encoded


def join_ids(ids: Sequence[bytes]) -> bytes:
    """Return the id of a composite: checked ids in the order of the view's entities, with 0x1F."""
    return SEPARATOR.join(ids)


def named_positions(entities: Sequence[str], named: Mapping[str, str]) -> dict[int, str]:
    """Return position -> id of the *named* entities among *entities*.

    named  entity -> id. It is of no row of these entities unless they have all that it names: then
           the result is empty.
    """
    if not named.keys() <= set(entities):
        return {}
    return {position: named[name] for position, name in enumerate(entities) if name in named}


def id_hashes(ids: Sequence[bytes]) -> NDArray[np.uint64]:
    """Return xxh3_64 (seed 0) of each joined id, (N,) uint64. Stored rows carry this hash."""
    return np.fromiter(map(xxh3_64_intdigest, ids), dtype=np.uint64, count=len(ids))
