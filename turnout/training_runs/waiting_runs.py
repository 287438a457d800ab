"""Finds the runs whose versions wait for a decision: nobody has approved or rejected them yet."""

from typing import TYPE_CHECKING

from protos import registry_pb2 as pb

if TYPE_CHECKING:
    from registry.client import RegistryClient

RUNS_READ_MAX = 10_000
WAITING_MAX = 100
"""Runs that lists show, unless the user asks for another number."""


async def waiting_runs(
    client: "RegistryClient", model: str = "", limit: int = WAITING_MAX
) -> list[pb.Run]:
    """Return the newest runs whose versions wait for a decision, with inputs and results.

    model  empty: of all models.
    """
    made = [
        run
        for run in await client.list_runs(model, RUNS_READ_MAX)
        if run.state == pb.Run.REGISTERED
    ]
    # One list of a model's versions says which ones are still in development.
    statuses = {
        (name, version.label): version.status
        for name in dict.fromkeys(run.model for run in made)
        for version in await client.list_versions(name)
    }
    waiting: list[pb.Run] = []
    for run in made:
        if len(waiting) == limit:
            break
        undecided = statuses.get((run.model, run.version)) == pb.DEVELOPMENT
        if undecided and not await client.approvals(run.model, run.version):
            waiting.append(await client.get_run(run.id))
    return waiting
