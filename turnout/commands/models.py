"""`turnout models`: what exists, and who answers."""

import asyncio

import typer

from protos import registry_pb2
from turnout.cli import clients
from turnout.cli.context import Asked
from turnout.views.json_values import plain
from turnout.views.terminal import table, terminal


def models(ctx: typer.Context) -> None:
    """List the models: their versions, and who answers their calls now."""
    asked: Asked = ctx.obj
    screen = terminal(asked.json)
    found = asyncio.run(_models(asked))
    rows = [
        (
            one.model,
            one.versions,
            one.deployment.production or "-",
            _share(one.deployment.canary.version, one.deployment.canary.share_bp),
            _share(one.deployment.standby, one.deployment.standby_bp),
            ", ".join(f"{s.version}" for s in one.deployment.shadows) or "-",
            one.deployment.revision,
        )
        for one in found
    ]
    columns = ("model", "versions", "production", "canary", "standby", "shadows", "revision")
    screen.result([plain(one) for one in found], table(columns, rows))
    if not found:
        screen.hint("No model yet: `turnout demo` makes one, or `turnout versions register`.")


async def _models(asked: Asked) -> list[registry_pb2.ModelSummary]:
    async with clients.registry(asked) as client:
        return list(await client.list_models())


def _share(version: str, share_bp: int) -> str:
    return f"{version} ({share_bp / 100:g} %)" if version else "-"
