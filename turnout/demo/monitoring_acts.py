"""The acts about monitoring: earlier days with a fault, an explained score, the five measures."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from access.peer_tls import open_channel
from host.clock import DAY_NS
from monitoring.cells.cell import cell_to_proto
from monitoring.cells.counting import CellCounter
from monitoring.cells.decision_rows import SAMPLE_ALL, sample_decisions
from monitoring.cells.version_bins import VersionBins
from protos import explain_pb2, registry_pb2
from protos import monitoring_pb2 as pb
from protos.explain_pb2_grpc import ExplainerStub
from protos.journal_pb2 import ServedBatch
from protos.monitoring_pb2_grpc import CellSinkStub
from registry.client import RegistryClient, call_metadata
from training.export.onnx_model import OnnxModel
from turnout.demo.checklist import Step, require
from turnout.demo.context import MODEL, OPERATOR, DemoContext
from turnout.demo.example import subscriber_id
from turnout.report.command import read_inputs
from turnout.report.measures import report_of
from turnout_client import PredictClient

DAYS = 7
"""Days before today that are made up from the labelled rows."""
BROKEN_DAYS = 2
"""The last of them, in which a column comes in cents and not in euros."""
COLUMN = "churn_profile:monthly_charges"
CENTS = 100.0
PERSONS = 1_500
READER = "earlier-days"
"""The name under which the made-up days are pushed, as a reader of journals pushes real ones."""
CALL_S = 30.0
INCIDENT_S = 90.0
REPORT_DAYS = 91
CONTRIBUTIONS_SHOWN = 3


async def monitoring(context: DemoContext, step: Step) -> None:
    """Push a week before today whose last days are broken, and wait for the incident."""
    today = time.time_ns() // DAY_NS
    async with _sink(context) as stub:
        opened = await stub.OpenReader(pb.JournalName(gateway=READER), timeout=CALL_S)
        bins = await _version_bins(context, stub)
        for number in range(DAYS):
            step.note = f"day {number + 1} of {DAYS} before today"
            broken = number >= DAYS - BROKEN_DAYS
            served = await asyncio.to_thread(
                _served_day, context, bins, today - DAYS + number, broken=broken
            )
            batch = _cell_batch(served, bins, opened.sequence + number + 1)
            await stub.PushCells(batch, timeout=CALL_S)
    # Monitoring looks at days that are over by itself, and opens one incident.
    step.note = "monitoring looks at these days"
    incident = await _wait_for_incident(context)
    figures = json.loads(incident.figures_json)
    streams = [item["stream"] for item in figures["alarms"]]
    require(COLUMN in streams, f"{COLUMN} is not among the alarms of {incident.id}: {streams}")
    first_broken = (today - BROKEN_DAYS) * DAY_NS // 10**6
    require(
        abs(incident.since_unix_ms - first_broken) <= DAY_NS // 10**6,
        f"the change began on day {today - BROKEN_DAYS}, and incident {incident.id} says otherwise",
    )
    step.note = (
        f"euros became cents in {COLUMN}; incident {incident.id}: {incident.title} "
        f"(alarms of {len(set(streams))} streams are one incident)"
    )


async def explanation(context: DemoContext, step: Step) -> None:
    """Explain the score of a customer, and count the five measures."""
    # A call, and where its score comes from.
    async with PredictClient(context.system.gateway) as client:
        scored = await client.predict(MODEL, keys=subscriber_id(41), timeout_s=CALL_S)
    async with _channel(context) as channel:
        stub: Any = ExplainerStub(channel)  # type: ignore[no-untyped-call]
        request = explain_pb2.ExplainRequest(prediction_id=scored.prediction_id)
        reply = await stub.Explain(request, metadata=call_metadata(OPERATOR, None), timeout=CALL_S)
    total = reply.base + sum(item.contribution for item in reply.contributions)
    require(
        abs(total - reply.margin) < 1e-3,
        f"contributions add up to {total}, and the score's margin is {reply.margin}",
    )
    largest = [
        f"{item.feature} {item.contribution:+.2f}"
        for item in reply.contributions[:CONTRIBUTIONS_SHOWN]
    ]
    # The five measures, from the history.
    async with context.registry_client(OPERATOR) as registry:
        value = report_of(await read_inputs(registry, REPORT_DAYS))
    context.measured["five_measures"] = _five_measures(value)
    step.note = (
        f"{subscriber_id(41)} scores {reply.score:.3f}: {', '.join(largest)}, ... which add up; "
        f"{value['incidents']['count']} incidents and "
        f"{value['rollbacks']['automatic']['count']} automatic rollbacks are in the report"
    )


def _five_measures(value: dict[str, Any]) -> dict[str, str]:
    """Return the five measures of `turnout report` in a few words each."""
    made, known = value["time_to_production"]["total"], value["monitored_models"]
    moved = value["rollbacks"]["automatic"]
    uplift = [item for item in value["uplift"] if item["measured"]]
    return {
        "to_production": f"{made['count']} versions, median {_seconds(made['median_s'])}",
        "monitored": f"{known['in_monitored_production']} of {known['known']} models",
        "incidents": f"{value['incidents']['count']}, {value['incidents']['open']} open",
        "rollbacks": f"{moved['count']}, median {_seconds(moved['median_s'])}",
        "uplift": f"{len(uplift)} models measured",
    }


def _seconds(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2g} s"


def _served_day(context: DemoContext, bins: VersionBins, day: int, *, broken: bool) -> ServedBatch:
    """Return a day of customers, drawn from the labelled rows and scored by the version."""
    rng = np.random.default_rng(day)
    assert context.labelled_rows is not None
    rows = context.labelled_rows[rng.integers(0, len(context.labelled_rows), PERSONS)].copy()
    if broken:
        rows[:, bins.names.index(COLUMN)] *= CENTS
    scores = OnnxModel(context.files["candidate"]["model.onnx"]).scores(rows)
    at = day * DAY_NS + np.sort(rng.integers(0, DAY_NS, PERSONS))
    return ServedBatch(
        model=MODEL,
        version=bins.version,
        version_digest=bins.digest8,
        at_unix_ns=at.astype("<i8").tobytes(),
        role=bytes([1]) * PERSONS,
        row_count=np.ones(PERSONS, "<u4").tobytes(),
        prediction_ids=bytes(64 * PERSONS),
        key_hash=rng.permutation(np.arange(PERSONS, dtype="<u8") * np.uint64(7919)).tobytes(),
        row_flags=np.zeros(PERSONS, "<u4").tobytes(),
        width=rows.shape[1],
        vectors=rows.astype("<f4").tobytes(),
        outputs=scores.shape[1],
        scores=scores.astype("<f4").tobytes(),
        entity_ids=[subscriber_id(number) for number in range(PERSONS)],
    )


def _cell_batch(served: ServedBatch, bins: VersionBins, sequence: int) -> pb.CellBatch:
    """Return what a reader of journals pushes of these rows."""
    counter = CellCounter(lambda *_version: bins, lambda ids: _no_holdout(len(ids) // 64))
    counter.add(served)
    return pb.CellBatch(
        journal=pb.JournalName(gateway=READER),
        sequence=sequence,
        cells=[cell_to_proto(*cell) for cell in counter.take_cells().items()],
        decisions=sample_decisions(served, _no_holdout(PERSONS), SAMPLE_ALL),
    )


def _no_holdout(calls: int) -> NDArray[np.bool_]:
    return np.zeros(calls, dtype=np.bool_)


async def _version_bins(context: DemoContext, stub: Any) -> VersionBins:  # noqa: ANN401  a stub
    """Return by which bins the candidate is counted."""
    label = context.versions["candidate"]
    async with context.registry_client(OPERATOR) as registry:
        version = await registry.get_version(MODEL, label)
    digest8 = int.from_bytes(bytes.fromhex(version.digest)[:8], "little")
    request = pb.VersionBinsRequest(model=MODEL, version=label, version_digest=digest8)
    return VersionBins.from_proto(await stub.GetVersionBins(request, timeout=CALL_S))


async def _wait_for_incident(context: DemoContext) -> registry_pb2.Incident:
    """Return the incident that monitoring opens. Raises TimeoutError."""

    async def wait(registry: RegistryClient) -> registry_pb2.Incident:
        async for incident in registry.watch_incidents():
            if incident.model == MODEL and incident.kind in ("features", "score"):
                return incident
        raise TimeoutError

    async with context.registry_client(OPERATOR) as registry:
        return await asyncio.wait_for(wait(registry), INCIDENT_S)


@asynccontextmanager
async def _channel(context: DemoContext) -> AsyncIterator[Any]:
    """Yield a channel to the control process."""
    system = context.system
    async with open_channel(system.registry, system.certificate, None) as channel:
        yield channel


@asynccontextmanager
async def _sink(context: DemoContext) -> AsyncIterator[Any]:
    """Yield the stub that readers of journals push with."""
    async with _channel(context) as channel:
        yield CellSinkStub(channel)  # type: ignore[no-untyped-call]
