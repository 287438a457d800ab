"""Forget over gRPC: what a reader holds of an older reading of its journal is not pushed."""

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import Mock

import grpc
import numpy as np
import pytest

from access.interceptor import access_interceptor
from journal.forget import forget_in_journals
from journal.person import Person
from journal.segment import JournalKind
from journal.tape import SegmentWriter
from monitoring.api.decision_policy import day_of_id
from monitoring.api.outcome_segments import OutcomeSegments
from monitoring.api.reader_policies import ReaderPolicies
from monitoring.api.removal import PersonRemoval
from monitoring.api.service import CellSinkService, MonitoringService, service_handler
from monitoring.cells.decision_rows import SAMPLE_ALL
from monitoring.decisions.decision_store import DecisionStore
from monitoring.decisions.scored_inputs import ScoredRows
from monitoring.fold.id_fields import IdFields
from monitoring.fold.journal_fold import JournalFold
from monitoring.fold.sink_client import CellSinkClient
from monitoring.store.cell_rows import sum_of_cells
from monitoring.store.database import MonitoringDatabase
from monitoring.store.monitoring_store import MonitoringStore
from protos import monitoring_pb2 as pb
from protos.monitoring_pb2_grpc import MonitoringStub
from registry.client import call_metadata
from tests.monitoring.served import KEY, churn_bins, outcome_record, served_batch

PERSON = "+49-170-5550100"
NAME = pb.JournalName(gateway="gateway-1")
REQUEST = pb.ForgetRequest(
    ids={"customer": PERSON},
    models=[
        pb.ForgetModel(
            model="churn",
            versions=[pb.VersionEntities(versions=["7"], entities=["customer"])],
        )
    ],
)


class ServedMonitoring:
    """Monitoring on a server of its own, and a reader's client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "decisions"
        self.database = MonitoringDatabase(f"sqlite:///{folder}/monitoring.sqlite")
        self.decisions = DecisionStore(self.folder, self.database, day_of_id)
        self.store = MonitoringStore(self.database, lambda: 0, self.decisions.add_batch)
        self.address = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[CellSinkClient]:
        """Serve, and yield a client."""
        with ThreadPoolExecutor(1) as thread:
            shares = ReaderPolicies(SAMPLE_ALL)
            shares.apply({}, 0, {}, {})
            rows = ScoredRows(self.folder, self.database)
            segments = OutcomeSegments(rows, self.store.find_version)
            sink = CellSinkService(self.store, Mock(), shares, segments, thread)
            removal = PersonRemoval(self.store, self.decisions, thread, sink.refuse_read_batches)
            service = MonitoringService(
                self.store, Mock(), self.decisions, shares, removal, Mock(), thread
            )
            server = grpc.aio.server(interceptors=(access_interceptor(()),))
            server.add_generic_rpc_handlers(
                (service_handler("CellSink", sink), service_handler("Monitoring", service))
            )
            self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
            await server.start()
            client = CellSinkClient(self.address, NAME, None, None)
            try:
                yield client
            finally:
                await client.close()
                await server.stop(0)

    async def forget(self, request: pb.ForgetRequest) -> pb.ForgetReply:
        """Return the answer to a request."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            stub = MonitoringStub(channel)  # type: ignore[no-untyped-call]
            reply: pb.ForgetReply = await stub.Forget(request, metadata=call_metadata("sam", None))
            return reply


def write_journal(folder: Path) -> None:
    """Write two calls of one row and their outcomes; one call is the person's."""
    batch = served_batch(np.random.default_rng(1), 2, rows_max=1)
    del batch.entity_ids[:]
    batch.entity_ids.extend([PERSON, "other"])
    ids = batch.prediction_ids[:64], batch.prediction_ids[64:]
    reports = [outcome_record(item).SerializeToString() for item in ids]
    for kind, payloads in (
        (JournalKind.SERVED, [batch.SerializeToString()]),
        (JournalKind.OUTCOMES, reports),
    ):
        writer = SegmentWriter(folder, kind, 1 << 20, time.time_ns, 1)
        writer.roll()
        writer.write_records(list(payloads))
        writer.close()


def read_batch(folder: Path, state: pb.ReaderState) -> pb.CellBatch:
    """Return what a reader counts that begins at *state*."""
    fold = JournalFold(folder, NAME, state, IdFields(lambda: KEY))
    content = fold.read()
    return fold.batch_of(content, dict.fromkeys(content.versions, churn_bins()))


def test_batch_that_was_read_before_a_removal_is_refused(tmp_path: Path) -> None:
    """The reader opens again, and pushes what the rewritten journal has: the other person's."""

    async def run() -> None:
        journal = tmp_path / "journal"
        journal.mkdir()
        write_journal(journal)
        person = Person({"customer": PERSON}, {("churn", "c0"): ("customer",)}, {}, KEY)
        monitoring = ServedMonitoring(tmp_path)
        monitoring.store.save_version(churn_bins())
        async with monitoring.serving() as client:
            held = read_batch(journal, await client.open_reader())
            assert len(held.outcomes) == 2
            forget_in_journals([journal], person)
            await monitoring.forget(REQUEST)
            with pytest.raises(grpc.aio.AioRpcError, match="open it again"):
                await client.push(held)
            await client.push(read_batch(journal, await client.open_reader()))
            assert await monitoring.forget(REQUEST) == pb.ForgetReply()
        assert monitoring.decisions.rows() == 1
        total = sum_of_cells(monitoring.store.read_cells(0, 10**9))
        assert (total.rows, total.counts("outcome:churned:positive").sum()) == (1, 1)
        # After a start of monitoring the same: no removal is forgotten by it.
        async with monitoring.serving() as client:
            held.sequence = 2
            with pytest.raises(grpc.aio.AioRpcError, match="open it again"):
                await client.push(held)
        monitoring.store.close()

    asyncio.run(run())


def test_counting_refuses_nothing(tmp_path: Path) -> None:
    """A dry run, and a request without ids, which only asks whether it would be taken."""

    async def run() -> None:
        journal = tmp_path / "journal"
        journal.mkdir()
        write_journal(journal)
        monitoring = ServedMonitoring(tmp_path)
        monitoring.store.save_version(churn_bins())
        async with monitoring.serving() as client:
            held = read_batch(journal, await client.open_reader())
            dry = pb.ForgetRequest.FromString(REQUEST.SerializeToString())
            dry.dry_run = True
            for request in (dry, pb.ForgetRequest()):
                assert await monitoring.forget(request) == pb.ForgetReply()
            await client.push(held)
            counted = await monitoring.forget(dry)
            assert (counted.outcomes, counted.calls, counted.rows) == (1, 1, 1)
            assert await monitoring.forget(REQUEST) == counted
        monitoring.store.close()

    asyncio.run(run())
