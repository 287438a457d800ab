"""Outcomes by entity, from a caller and from a file, find the predictions of a running system."""

import asyncio
import time
from pathlib import Path

import grpc
import pytest

from monitoring.api.entity_outcomes import EntityOutcomes
from monitoring.api.outcome_segments import OutcomeSegments
from monitoring.api.reader_policies import ReaderPolicies
from monitoring.decisions.answered_rows import AnsweredRows
from monitoring.decisions.scored_inputs import ScoredRows
from monitoring.store.database import MonitoringDatabase
from monitoring.store.monitoring_store import MonitoringStore
from monitoring.store.waiting_outcomes import ARRIVAL_MS
from protos.predict_pb2 import OutcomeReply, OutcomeRequest
from protos.predict_pb2_grpc import PredictorStub
from tests.walks.monitoring.test_monitored_system import predict, wait_rows
from tests.walks.running_system import poll_system_until
from tests.walks.system.test_parts_gone import MODEL, kill, system_without_restart
from turnout_client import PredictClient

pytestmark = pytest.mark.walk


def test_outcomes_by_entity_find_their_predictions(tmp_path: Path) -> None:
    """The search is made here, because monitoring makes it ten minutes later."""
    folder = tmp_path / "state"
    outcomes = tmp_path / "outcomes.csv"

    async def walk() -> None:
        async with (
            system_without_restart(folder) as (system, parts),
            PredictClient(system.addresses.gateway) as client,
            grpc.aio.insecure_channel(system.addresses.gateway) as channel,
        ):
            # Ten customers are scored.
            await predict(client, 10)
            await wait_rows(system, 10)
            # One report by a caller, and a file of two, of which one key was never asked about.
            now_ms = time.time_ns() // 1_000_000
            report = OutcomeRequest(
                model=MODEL, keys=["S3"], name="churned", value=1.0, event_time_ms=now_ms
            )
            stub = PredictorStub(channel)  # type: ignore[no-untyped-call]
            reply = await stub.ReportOutcome(report, timeout=20)
            assert reply.attribution == OutcomeReply.BY_ENTITY_LATER
            outcomes.write_text(
                f"key,time,name,value\nS4,{now_ms},churned,0\nX9,{now_ms},churned,1\n"
            )
            command = ("models", "import-outcomes", MODEL, "--file", str(outcomes))
            addresses = system.addresses
            where = ("--registry", addresses.registry)
            certificate = ("--registry-certificate", addresses.registry_certificate)
            done = await asyncio.to_thread(system.turnout, *command, *where, *certificate)
            assert (done["rows"], done["waiting"], done["unattributed"]) == (2, 2, 0)
            database = MonitoringDatabase(f"sqlite:///{folder / 'monitoring/monitoring.sqlite'}")
            store = MonitoringStore(database, lambda: 0)
            await asyncio.to_thread(
                poll_system_until, lambda: store.waiting_outcomes() == 3, 30.0, "three outcomes"
            )
            await kill(parts["control"])
            # Ten minutes later.
            decisions = folder / "monitoring" / "decisions"
            rows, policies = ScoredRows(decisions, database), ReaderPolicies()
            policies.apply({}, 0, {}, {})
            job = EntityOutcomes(
                store,
                AnsweredRows(decisions, database),
                OutcomeSegments(rows, store.find_version),
                policies,
                lambda: time.time() + ARRIVAL_MS / 1e3,
            )
            assert job.attribute() == 3
            assert store.waiting_outcomes() == 1
            (found,) = [item for item in store.coverage(0, 10**9) if item.version == "1"]
            assert (found.rows, found.outcomes) == (10, 2)
            store.close()

    asyncio.run(walk())
