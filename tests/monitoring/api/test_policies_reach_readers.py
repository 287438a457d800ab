"""A policy that is applied in the registry reaches the readers of monitoring without a restart."""

import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from access.interceptor import access_interceptor
from monitoring.api import component as component_module
from monitoring.api.component import MonitoringComponent
from monitoring.cells.decision_rows import SAMPLE_ALL
from monitoring.fold.sink_client import CellSinkClient
from monitoring.store.window_counts import WindowBatchRows
from protos import monitoring_pb2 as pb
from registry.client import RegistryClient
from tests.registry.project_definitions import PLAN, definitions_of
from tests.registry.registry_fixture import registry_fixture, run_walk

pytestmark = pytest.mark.walk

NAME = pb.JournalName(gateway="gateway-1")
HOUR_S = 3_600
DAY_HOURS = 24


async def apply(client: RegistryClient, revision: int, **monitoring: Any) -> None:  # noqa: ANN401
    """Apply a project whose model churn is watched like this."""
    models = {"churn": {"owner": "ops", "monitoring": monitoring}}
    await client.apply_project(
        "shop",
        expected_revision=revision,
        plan_digest=PLAN,
        definitions=definitions_of(models=models),
        effects=(),
        commit="",
        dirty=False,
        reason="watch it",
    )


def test_applied_policies_decide_segments_and_decisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer to a reader waits for them, and later ones follow each apply."""
    monkeypatch.setattr(component_module, "POLICIES_S", 0.05)

    async def course() -> None:
        async with registry_fixture(tmp_path / "registry") as registry:
            tenure = {"feature": "months", "ranges": {"new": [0, 12]}}
            await apply(registry.cleo, 0, decisions=1_000, segments={"tenure": tenure})
            component = MonitoringComponent(tmp_path / "monitoring", "", registry.address)
            # Yesterday the model had twice as many rows as keys are asked for.
            hour = int(time.time()) // HOUR_S // DAY_HOURS * DAY_HOURS - 1
            scored = {("churn", "1", hour): 2_000}
            component.store.add_windows([WindowBatchRows("g/0/1", 1, scored, scored, hour)])  # type: ignore[arg-type]
            server = grpc.aio.server(interceptors=(access_interceptor(()),))
            component.add_to(server)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            await component.start()
            client = CellSinkClient(f"127.0.0.1:{port}", NAME, None, None)
            state = await client.open_reader()
            assert dict(state.decisions_by_model) == {"churn": SAMPLE_ALL // 2}
            (segments,) = state.segments
            assert [item.name for item in segments.segmentations] == ["tenure"]
            # A push is answered by what is applied then.
            await apply(registry.cleo, 1, decisions="all")
            sequence = 0
            while state.segments:
                sequence += 1
                state = await client.push(pb.CellBatch(journal=NAME, sequence=sequence))
            assert dict(state.decisions_by_model) == {"churn": SAMPLE_ALL}
            await client.close()
            await server.stop(0)
            await component.stop()

    run_walk(course())
