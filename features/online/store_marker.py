"""The mark of the system that writes to an online store, so that no other one writes its rows.

Two systems with one view would write the same keys, and each would serve the other's customers. So
a writer first takes the namespace of its store for its system, and a second system is refused.
"""

import hashlib
import json
import time

import redis

from features.errors import ForeignStoreError
from features.writes.row_scripts import StoreClient


def system_id(version_public_key: bytes) -> str:
    """Return the id of the system whose registry signs with the key that belongs to this one."""
    return hashlib.sha256(version_public_key).hexdigest()[:16]


def claim_store(client: redis.Redis, system: str) -> None:
    """Take the namespace of the store for *system*, or see that it is taken for it already.

    client  as for materialise. It needs GET and SET.
    system  from `system_id`.

    Raises ForeignStoreError when the store belongs to another system, redis.RedisError.
    """
    value = json.dumps({"system": system, "since_unix_ms": time.time_ns() // 1_000_000})
    if not client.set(marker_key(client), value, nx=True):
        check_store(client, system)


def check_store(client: redis.Redis, system: str) -> None:
    """Refuse a store whose namespace another system has taken. It needs GET.

    Raises ForeignStoreError when the store belongs to another system, redis.RedisError.
    """
    key = marker_key(client)
    stored = client.get(key)
    if stored is None:
        return
    owner = _owner(stored) if isinstance(stored, bytes) else "nothing that can be read"
    if owner != system:
        raise ForeignStoreError(
            f"this online store belongs to the system {owner}, and this system is {system}; "
            "nothing was written. Give this system a namespace of its own "
            "(redis://host:port?namespace=NAME) or a store of its own. If the other system is no "
            f"more, delete the key {key.decode()!r} in the store"
        )


def marker_key(client: redis.Redis) -> bytes:
    """Return the key of the mark. No row has it: the key of a row ends with 16 digits."""
    namespace = client.namespace if isinstance(client, StoreClient) else ""
    return f"{{turnout}}:{namespace + ':' if namespace else ''}system@1".encode()


def _owner(stored: bytes) -> str:
    try:
        return str(json.loads(stored)["system"])
    except (ValueError, KeyError, TypeError):
        return "nothing that can be read"
