"""Asks monitoring to remove a person's decisions and outcomes."""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import grpc

from access.peer_tls import open_channel
from monitoring.cells.outcome_columns import id_digest
from protos import monitoring_pb2 as pb
from protos.monitoring_pb2_grpc import MonitoringStub
from registry.client import call_metadata
from turnout.cli.context import CommandContext
from turnout.errors import OperatorError

CALL_S = 3_600.0
"""Decisions of 120 days are searched in seconds to minutes."""
DIGESTS_MAX = 100_000
"""Prediction ids of one request."""


def forget_requests(
    named: Mapping[str, str],
    versions: Mapping[str, Mapping[str, tuple[str, ...]]],
    key_hashes: Mapping[str, frozenset[int]],
    prediction_ids: Collection[bytes],
    *,
    dry_run: bool,
) -> list[pb.ForgetRequest]:
    """Return the requests that name a person.

    named           entity -> id.
    versions        model -> version label -> the entities of its rows.
    key_hashes      model -> key hashes that the id makes.
    prediction_ids  of calls that journals had.

    There are several if there are more prediction ids than one request may have. Then a dry run
    counts decisions once for each of them.
    """
    # The labels of a model that have the same entities go together.
    models = []
    for model, labels in sorted(versions.items()):
        by_entities: dict[tuple[str, ...], list[str]] = {}
        for label, entities in labels.items():
            by_entities.setdefault(entities, []).append(label)
        models.append(
            pb.ForgetModel(
                model=model,
                versions=[
                    pb.VersionEntities(versions=same, entities=entities)
                    for entities, same in by_entities.items()
                ],
                key_hashes=sorted(key_hashes.get(model, ())),
            )
        )
    # Prediction ids are cut to the bound of a request.
    digests = sorted(map(id_digest, prediction_ids))
    requests = [
        pb.ForgetRequest(
            ids=named, id_digests=b"".join(digests[start : start + DIGESTS_MAX]), dry_run=dry_run
        )
        for start in range(0, max(1, len(digests)), DIGESTS_MAX)
    ]
    # Each request says who the person is.
    for request in requests:
        request.models.extend(models)
    return requests


def call_forget(
    context: CommandContext, address: str, requests: Sequence[pb.ForgetRequest]
) -> dict[str, int]:
    """Send requests, and return the sums of what was removed, or would be.

    address   host:port of monitoring; empty: that of the registry.
    requests  may be empty: then it is found out whether monitoring takes such requests.

    Raises OperatorError when monitoring does not do it.
    """
    return asyncio.run(_call_forget(context, address or context.registry_address(), requests))


async def _call_forget(
    context: CommandContext, address: str, requests: Sequence[pb.ForgetRequest]
) -> dict[str, int]:
    token = context.bearer_token()
    sums: Counter[str] = Counter()
    async with open_channel(address, context.certificate(), token) as channel:
        stub: Any = MonitoringStub(channel)  # type: ignore[no-untyped-call]
        for request in requests or [pb.ForgetRequest(dry_run=True)]:
            try:
                reply: pb.ForgetReply = await stub.Forget(
                    request, metadata=call_metadata(context.actor, token), timeout=CALL_S
                )
            except grpc.aio.AioRpcError as error:
                raise OperatorError(
                    f"monitoring at {address} does not remove rows: {error.details()}; "
                    f"name its address with --monitoring, or say with --only "
                    "where else to look"
                ) from error
            for field in reply.DESCRIPTOR.fields:
                sums[field.name] += getattr(reply, field.name)
    return dict(sums)
