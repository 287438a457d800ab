"""Outcomes by entity, from a caller and from a file, find the predictions of a running system."""

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from features.contract import ModelContract, RequestInput
from monitoring.api.entity_outcomes import EntityOutcomes
from monitoring.api.outcome_segments import OutcomeSegments
from monitoring.api.reader_policies import ReaderPolicies
from monitoring.decisions.answered_rows import AnsweredRows
from monitoring.decisions.scored_inputs import ScoredRows
from monitoring.store.database import MonitoringDatabase
from monitoring.store.monitoring_store import MonitoringStore
from monitoring.store.waiting_outcomes import ARRIVAL_MS
from protos.predict_pb2 import OutcomeReply
from tests.tiny_models import tiny_files
from tests.walks.monitoring.test_monitored_system import monitor_status, predict, wait_rows
from tests.walks.running_system import RunningSystem, poll_system_until
from tests.walks.system.test_parts_gone import (
    MODEL,
    deploy_model,
    kill,
    system_without_restart,
)
from turnout_client import PredictClient

pytestmark = pytest.mark.walk

OFFERS = "offers"
OFFERS_CONTRACT = ModelContract(
    entities=("subscriber", "offer"),
    inputs=(RequestInput(name="price", default=0.0), RequestInput(name="age", default=0.0)),
    outputs=("taken",),
)


def waiting(store: MonitoringStore) -> int:
    """Return how many outcomes wait."""
    return sum(item.number for item in store.outcome_backlogs().values())


async def import_outcomes(
    system: RunningSystem, model: str, file: Path, text: str, exit_code: int = 0
) -> Any:  # noqa: ANN401  JSON, or what a refusal says
    """Import a file with this text."""
    await asyncio.to_thread(file.write_text, text)
    command = ("models", "import-outcomes", model, "--file", str(file))
    where = ("--registry", system.addresses.registry)
    certificate = ("--registry-certificate", system.addresses.registry_certificate)
    return await asyncio.to_thread(
        partial(system.turnout, *command, *where, *certificate, exit_code=exit_code)
    )


async def report_and_import(
    system: RunningSystem, client: PredictClient, file: Path, now_ms: int
) -> None:
    """Report an outcome as a caller, twice. Import two, of which one key was never asked about."""
    report = partial(client.report_entity_outcome, MODEL, "S3", "churned", 1.0, now_ms)
    for duplicate in (False, True):
        reply = await report(timeout_s=20)
        assert (reply.attribution, reply.duplicate) == (OutcomeReply.BY_ENTITY_LATER, duplicate)
    text = f"key,time,name,value\nS4,{now_ms},churned,0\nX9,{now_ms},churned,1\n"
    done = await import_outcomes(system, MODEL, file, text)
    assert (done["rows"], done["waiting"], done["unattributed"]) == (2, 2, 0)


async def offer_and_import(
    system: RunningSystem, client: PredictClient, file: Path, now_ms: int
) -> None:
    """Score two offers to a customer, and import which one was taken."""
    await deploy_model(system, OFFERS, tiny_files(OFFERS, contract=OFFERS_CONTRACT))
    for offer in ("O1", "O2"):
        await client.predict(OFFERS, keys=[("S1", offer)], inputs=[(1, 2)], timeout_s=5)
    # A file without the offers is refused.
    text = f"subscriber,time,name,value\nS1,{now_ms},taken,1\n"
    refused = await import_outcomes(system, OFFERS, file, text, exit_code=1)
    assert "keyed by subscriber, offer" in " ".join(refused.split())
    text = f"subscriber,offer,time,name,value\nS1,O2,{now_ms},taken,1\n"
    done = await import_outcomes(system, OFFERS, file, text)
    assert (done["rows"], done["waiting"]) == (1, 1)
    # Their rows are pushed by then.
    await asyncio.to_thread(
        poll_system_until,
        lambda: any(
            (item["model"], item["rows"]) == (OFFERS, 2)
            for item in monitor_status(system)["versions"]
        ),
        30.0,
        "two rows of offers",
    )


def attribute_ten_minutes_later(
    store: MonitoringStore, database: MonitoringDatabase, decisions: Path
) -> None:
    """Search for the predictions of both models, while control is not there."""
    rows, policies = ScoredRows(decisions, database), ReaderPolicies()
    policies.apply({}, 0, {}, {})
    job = EntityOutcomes(
        store,
        AnsweredRows(decisions, database),
        OutcomeSegments(rows, store.find_version),
        policies,
        lambda: time.time() + ARRIVAL_MS / 1e3,
    )
    assert sorted((job.attribute(), job.attribute())) == [1, 3]


def test_outcomes_by_entity_find_their_predictions(tmp_path: Path) -> None:
    """The search is made here, because monitoring makes it ten minutes later."""
    folder = tmp_path / "state"

    async def walk() -> None:
        async with (
            system_without_restart(folder) as (system, parts),
            PredictClient(system.addresses.gateway) as client,
        ):
            # Ten customers and two offers are scored, and some outcomes are known.
            await predict(client, 10)
            await wait_rows(system, 10)
            now_ms = time.time_ns() // 1_000_000
            await report_and_import(system, client, tmp_path / "outcomes.csv", now_ms)
            await offer_and_import(system, client, tmp_path / "offers.csv", now_ms)
            # They wait, and the status says so.
            path = folder / "monitoring" / "monitoring.sqlite"
            database = MonitoringDatabase(f"sqlite:///{path}")
            store = MonitoringStore(database, lambda: 0)
            await asyncio.to_thread(
                poll_system_until, lambda: waiting(store) == 4, 30.0, "four outcomes"
            )
            waits = (await asyncio.to_thread(monitor_status, system))["outcomes_by_entity"]
            shown = [(item["model"], item["waiting"]) for item in waits]
            assert shown == [(OFFERS, 1), (MODEL, 3)]
            assert all(0 <= item["oldest_s"] < 60 for item in waits)
            await kill(parts["control"])
            # Three of them find their predictions.
            attribute_ten_minutes_later(store, database, path.parent / "decisions")
            assert waiting(store) == 1
            counted = {item.model: (item.rows, item.outcomes) for item in store.coverage(0, 10**9)}
            assert counted == {MODEL: (10, 2), OFFERS: (2, 1)}
            store.close()

    asyncio.run(walk())
