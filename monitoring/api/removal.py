"""Removes a person from monitoring: decisions and reported outcomes.

Journals are rewritten before. What a reader holds in memory of an older reading is refused from the
first step on, so that nothing of the person is pushed later. Outcomes are found by the ids of
calls, so they go before the calls; a removal that is killed in between finds the calls again.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from monitoring.cells.outcome_columns import DIGEST_BYTES, id_digest
from monitoring.cells.outside_rows import outside_key_hash
from monitoring.decisions.decision_store import DecisionStore
from monitoring.decisions.person_rows import DecisionPerson, FoundCalls
from monitoring.store.monitoring_store import MonitoringStore
from protos import monitoring_pb2 as pb

Result = TypeVar("Result")


class PersonRemoval:
    """Removes one person after the other.

    thread               in which the database is used. Each step is one turn of it, so that pushes
                         come in between.
    refuse_read_batches  makes readers open again before they push.
    """

    def __init__(
        self,
        store: MonitoringStore,
        decisions: DecisionStore,
        thread: ThreadPoolExecutor,
        refuse_read_batches: Callable[[], None],
    ) -> None:
        self._store = store
        self._decisions = decisions
        self._thread = thread
        self._refuse_read_batches = refuse_read_batches
        self._lock = asyncio.Lock()

    async def forget(self, request: pb.ForgetRequest) -> pb.ForgetReply:
        """Remove or count the rows of a person. A request without ids names nobody.

        It may be repeated. Raises MonitoringStoreError and UnreadableDecisionsError.
        """
        if not request.ids:
            return pb.ForgetReply()
        async with self._lock:
            if not request.dry_run:
                self._refuse_read_batches()
            # Find the calls, and by their ids the outcomes.
            person = _person_of(request)
            calls = await self._run(lambda: self._decisions.find_calls(person))
            digests = _digests_of(request, calls)
            outside = outside_key_hash(person.longest_id) if len(person.ids) == 1 else None
            outcomes = await self._run(
                lambda: self._store.forget_outcomes(
                    person.key_hashes,
                    digests,
                    outside,
                    person.all_positions(),
                    dry_run=request.dry_run,
                )
            )
            # Then the calls themselves.
            files = 0 if request.dry_run else await self._remove(calls)
            return pb.ForgetReply(
                outcomes=outcomes,
                calls=calls.calls,
                rows=calls.rows,
                files=files,
                unknown_rows=calls.unknown_rows,
            )

    async def _remove(self, calls: FoundCalls) -> int:
        """Remove calls from blocks and files, and return how many files had some."""
        await self._run(lambda: self._decisions.remove_calls_from_blocks(calls))
        searched: set[str] = set()
        files = 0
        while True:
            had = await self._run(
                lambda: self._decisions.remove_calls_from_next_file(calls, searched)
            )
            if had is None:
                break
            files += had
        await self._run(self._store.overwrite_deleted)
        return files

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _person_of(request: pb.ForgetRequest) -> DecisionPerson:
    return DecisionPerson(
        dict(request.ids),
        {
            model.model: {
                label: tuple(part.entities) for part in model.versions for label in part.versions
            }
            for model in request.models
        },
        {model.model: frozenset(model.key_hashes) for model in request.models},
    )


def _digests_of(request: pb.ForgetRequest, calls: FoundCalls) -> set[bytes]:
    """Return the digests of all prediction ids that journals and decisions had of the person."""
    content = request.id_digests
    digests = {
        content[start : start + DIGEST_BYTES] for start in range(0, len(content), DIGEST_BYTES)
    }
    return digests.union(*(map(id_digest, ids) for ids in calls.prediction_ids.values()))
