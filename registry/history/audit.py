"""The audit of a registry from outside: it fetches history and tables, and believes neither.

The auditor verifies chain and signature, replays the entries itself, and compares the result with
every row that the registry lists. What rests on the registry's own word is named in the report.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Protocol, TypeVar

from host.collector import collector_paused
from protos import registry_pb2 as pb
from registry.history.chain import HistoryChain, StoredEntry, is_signed
from registry.history.comparison import RowDifference, TableComparison
from registry.history.replay import (
    PROVEN_TABLES,
    ReplayedState,
    ReplayError,
)
from registry.types import AuditReport, BrokenEntry

Item = TypeVar("Item")

SEALED_ROWS = (
    "Checkpoints of rollouts and the ends of leases: the history does not have them, and only the "
    "registry can check their seals."
)


class AuditedRegistry(Protocol):
    """What an audit asks of a registry. `RegistryClient` has it."""

    async def history(
        self, after: int = 0, limit: int = 0, object_prefix: str = ""
    ) -> pb.ListHistoryReply:
        """Return entries and the signed head."""
        ...

    def read_history(
        self, after: int = 0, until: int = 0
    ) -> AsyncGenerator[tuple[list[StoredEntry], pb.SignedHead], None]:
        """Yield all entries of a range in blocks, each with the signed head."""
        ...

    async def uncut_entry(self, entry: pb.HistoryEntry) -> pb.HistoryEntry:
        """Return *entry* of a page as it was written."""
        ...

    async def list_state(self, table: str, after: str, *, prove: bool) -> pb.ListStateReply:
        """Return a page of a table's rows."""
        ...

    async def serving_keys(self) -> pb.ServingKeys:
        """Return the keys that gateways get."""
        ...


class ProblemFoundError(Exception):
    """The audit found that something is not as it was written. It goes no further."""

    def __init__(self, problem: str, broken: BrokenEntry | None = None) -> None:
        super().__init__(problem)
        self.broken = broken


async def audit_registry(
    registry: AuditedRegistry,
    public_key: bytes | None,
    noted_heads: Mapping[str, pb.SignedHead],
) -> AuditReport:
    """Verify history, heads and tables; return the first problem and what was not proven.

    public_key   the registry's key as the auditor knows it, or None.
    noted_heads  where a head was noted -> the head.
    """
    audit = _Audit(registry, public_key, noted_heads)
    try:
        with collector_paused():
            await audit.run()
    except ProblemFoundError as error:
        return audit.report(str(error), error.broken)
    return audit.report()


async def _prefetched(items: AsyncGenerator[Item, None]) -> AsyncGenerator[Item, None]:
    """Yield *items*. The next item arrives while the caller works on the one before."""
    following = asyncio.create_task(anext(items, None))
    try:
        while (item := await following) is not None:
            following = asyncio.create_task(anext(items, None))
            # The request leaves before the caller takes the event loop.
            await asyncio.sleep(0)
            yield item
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def _differences(comparison: TableComparison, page: pb.ListStateReply) -> list[RowDifference]:
    rows = [json.loads(row) for row in page.rows]
    return list(comparison.differences(rows, last=page.last_page or not rows))


class _Audit:
    """One audit in progress."""

    def __init__(
        self,
        registry: AuditedRegistry,
        public_key: bytes | None,
        noted_heads: Mapping[str, pb.SignedHead],
    ) -> None:
        self._registry = registry
        self._pinned_key = public_key
        self._noted_heads = noted_heads
        self._noted_seqs = {head.seq for head in noted_heads.values()}
        self._digests: dict[int, bytes] = {}
        """Number of an entry of which a head was noted -> its digest in this history."""
        self._chain = HistoryChain()
        self._state = ReplayedState()
        self._head = pb.SignedHead()
        self._stopped = ""
        self._unproven: Counter[str] = Counter()

    async def run(self) -> None:
        """Raise ProblemFoundError at the first problem."""
        # The registry proves itself first, so that it stops writing what should not be written.
        first_page = await self._registry.list_state(next(iter(PROVEN_TABLES)), "", prove=True)
        self._stopped = first_page.stopped
        # The log.
        self._head = await self._read_history()
        self._check_head(self._head)
        await self._check_key()
        self._check_noted_heads()
        # The tables.
        await self._compare_tables()

    def report(self, problem: str = "", broken: BrokenEntry | None = None) -> AuditReport:
        """Return what the audit found until now."""
        unproven = [
            f"Field {name} of {count} rows: their entries were written by an older version of "
            "Turnout and do not have it."
            for name, count in sorted(self._unproven.items())
        ]
        unproven.append(SEALED_ROWS)
        if self._pinned_key is None:
            unproven.append(
                f"The signer: no key was given. The head is signed by {self._head.public_key.hex()}"
                ", which is the key that this registry gives to gateways."
            )
        if not self._noted_heads:
            unproven.append(
                "That this is not an older copy of the registry: no head was given that was noted "
                "elsewhere."
            )
        return AuditReport(self._head, problem, broken, self._stopped, tuple(unproven))

    async def _read_history(self, until: int = 0) -> pb.SignedHead:
        """Verify and replay the entries up to *until* or else to the newest; return the head."""
        head = pb.SignedHead()
        async with (
            aclosing(self._registry.read_history(self._chain.seq, until)) as blocks,
            aclosing(_prefetched(blocks)) as fetched,
        ):
            async for entries, block_head in fetched:
                self._replay(entries)
                head = block_head
        return head

    def _replay(self, entries: Sequence[StoredEntry]) -> None:
        broken = self._chain.extend(entries)
        if broken is not None:
            raise ProblemFoundError(f"history entry {broken.seq} {broken.problem}", broken)
        for entry in entries:
            if entry.seq in self._noted_seqs:
                self._digests[entry.seq] = entry.digest
            try:
                self._state.apply(entry)
            except ReplayError as error:
                raise ProblemFoundError(str(error)) from error

    def _check_head(self, head: pb.SignedHead) -> None:
        broken = self._chain.check_head(head, self._pinned_key or head.public_key)
        if broken is not None:
            raise ProblemFoundError(f"history entry {broken.seq} {broken.problem}", broken)

    async def _check_key(self) -> None:
        """Compare the head's key with the one that gateways verify versions with."""
        key = (await self._registry.serving_keys()).version_public_key
        if self._head.seq and key != self._head.public_key:
            broken = BrokenEntry(
                self._head.seq,
                f"is the head, signed by key {self._head.public_key.hex()[:16]}; the registry "
                f"gives gateways the key {key.hex()[:16]}",
            )
            raise ProblemFoundError(f"history entry {broken.seq} {broken.problem}", broken)

    def _check_noted_heads(self) -> None:
        for source, noted in self._noted_heads.items():
            if noted.public_key != self._head.public_key or not is_signed(noted):
                raise ProblemFoundError(
                    f"the head in {source} is not signed by this registry's key "
                    f"{self._head.public_key.hex()[:16]}: it was altered, or is of another registry"
                )
            if noted.seq > self._chain.seq:
                raise ProblemFoundError(
                    f"the registry is an older copy: it has {self._chain.seq} entries, and the "
                    f"head in {source} is entry {noted.seq}"
                )
            if self._digests.get(noted.seq) != noted.digest:
                raise ProblemFoundError(
                    f"the registry has another history: its entry {noted.seq} has the SHA-256 "
                    f"{self._digests.get(noted.seq, b'').hex()[:16]}, and the head in {source} has "
                    f"{noted.digest.hex()[:16]}"
                )

    async def _compare_tables(self) -> None:
        """Compare the rows of all tables with the replayed state."""
        comparisons = {table: TableComparison(self._state, table) for table in PROVEN_TABLES}
        async with aclosing(self._table_pages()) as pages, aclosing(_prefetched(pages)) as fetched:
            async for table, page in fetched:
                await self._compare_page(comparisons[table], page)
        for table, comparison in comparisons.items():
            for column, count in comparison.unproven.items():
                self._unproven[f"{table}.{column}"] = count

    async def _table_pages(self) -> AsyncGenerator[tuple[str, pb.ListStateReply], None]:
        """Yield the pages of one table after the other."""
        for table, key in PROVEN_TABLES.items():
            after, last = "", False
            while not last:
                page = await self._registry.list_state(table, after, prove=False)
                last = page.last_page or not page.rows
                yield table, page
                after = "" if last else str(json.loads(page.rows[-1])[key])

    async def _compare_page(self, comparison: TableComparison, page: pb.ListStateReply) -> None:
        self._stopped = self._stopped or page.stopped
        # Changes go on meanwhile. The rows are compared with the state at the page's own head.
        if page.head.seq > self._chain.seq:
            await self._read_history(page.head.seq)
        self._check_head(page.head)
        self._head = page.head
        # In a thread, because the request for the next page takes some turns of the event loop.
        for difference in await asyncio.to_thread(_differences, comparison, page):
            raise ProblemFoundError(await self._to_text(difference))

    async def _to_text(self, difference: RowDifference) -> str:
        page = await self._registry.history(after=max(difference.seq - 1, 0), limit=1)
        entries = [await self._registry.uncut_entry(entry) for entry in page.entries]
        return difference.to_text(entries[0] if entries else None)
