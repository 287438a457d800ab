"""Removes a person's rows from the online store, of every edition of every view."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import redis

from features.entity_ids import SEPARATOR, named_positions
from features.writes.materialise_record import parse_record, record_key
from features.writes.row_scripts import StoreClient

SCAN_KEYS = 1_000
"""Keys that one SCAN command looks at, some 0.2 ms of the store's time."""


@dataclass(frozen=True, slots=True)
class ForgottenOnline:
    """Rows of a person in the online store."""

    rows: int
    unknown: tuple[str, ...]
    """`<view>@<hash>` of views whose entities are unknown. Their rows stay; they hold the id."""


def try_erasing(client: redis.Redis) -> None:
    """Use the commands of `forget_online` on a key that no row has; nothing is removed.

    Raises redis.RedisError when the store refuses one, or does not answer.
    """
    client.scan(0, count=1)
    client.delete(b"{turnout}:erase_check@0000000000000000")


def forget_online(
    client: redis.Redis,
    entities_of: Callable[[str], Sequence[str] | None],
    named: Mapping[str, str],
    *,
    dry_run: bool = False,
) -> ForgottenOnline:
    """Delete the rows of *named* from the store, and return how many there were.

    The store is searched once by key, so that rows of editions out of use are found too.

    client       a client of `store_client` whose user may SCAN and DEL.
    entities_of  returns the entities of `<view>@<first 16 hex digits of the hash>`, or None.
    named        entity -> id. A row must have all of them.
    dry_run      counts only.

    Raises redis.RedisError when the store refuses a command.
    """
    namespace = client.namespace if isinstance(client, StoreClient) else ""
    prefix = f"{namespace}:" if namespace else ""
    # The store compares bytes; what matches the pattern is looked at exactly.
    longest = max(named.values(), key=len)
    pattern = f"{{*{_escaped(longest)}*}}:{_escaped(prefix)}*@*"
    found: set[bytes] = set()
    unknown: set[str] = set()
    for key in client.scan_iter(match=pattern, count=SCAN_KEYS):
        joined, _, rest = key.rpartition(b"}:")
        view = rest.decode(errors="replace").removeprefix(prefix)
        ids = joined.removeprefix(b"{").split(SEPARATOR)
        known = entities_of(view)
        if known is None:
            if any(text.encode() in ids for text in named.values()):
                unknown.add(view)
        elif _is_of(ids, named_positions(known, named)):
            found.add(key)
    # Delete what was found.
    keys = sorted(found)
    for start in range(0, 0 if dry_run else len(keys), SCAN_KEYS):
        # One command for each key, because a composite's keys may lie on several nodes.
        pipeline = client.pipeline(transaction=False)
        for key in keys[start : start + SCAN_KEYS]:
            pipeline.delete(key)
        pipeline.execute()
    # A killed materialise has left the id at which it stopped.
    if not dry_run:
        _forget_begun(client, namespace, named)
    return ForgottenOnline(len(keys), tuple(sorted(unknown)))


def _forget_begun(client: redis.Redis, namespace: str, named: Mapping[str, str]) -> None:
    """Delete the record of each killed materialise that stopped at one of these ids.

    The next materialise of its view writes all rows.
    """
    for key in client.scan_iter(match=record_key("*", "*", _escaped(namespace))):
        stored = client.get(key)
        record = parse_record(stored if isinstance(stored, bytes) else None)
        if record is None or record.begun is None:
            continue
        ids = record.begun.after_id.encode().split(SEPARATOR)
        if any(text.encode() in ids for text in named.values()):
            client.delete(key)


def _is_of(ids: Sequence[bytes], positions: Mapping[int, str]) -> bool:
    return bool(positions) and all(
        position < len(ids) and ids[position] == text.encode()
        for position, text in positions.items()
    )


def _escaped(text: str) -> str:
    """Return *text* as a part of a pattern that matches this text only."""
    return "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in text)
