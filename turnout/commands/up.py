"""`turnout up`: the whole system on this machine, until Ctrl-C."""

import asyncio
import signal
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, TaskID

from gateway.ingress_choice import IngressChoice
from turnout.cli.context import CommandContext
from turnout.processes.local_system import SystemPlan
from turnout.processes.local_system import run_system as system_up
from turnout.processes.system_file import SystemAddresses
from turnout.views.terminal import Terminal, named_values, terminal


def up(
    ctx: typer.Context,
    workers: Annotated[int, typer.Option(min=1, help="Gateway workers; one a core.")] = 2,
    store: Annotated[str, typer.Option(help="redis:// URL; empty: start one.")] = "",
    port: Annotated[int, typer.Option(help="Of Predict; 0: a free one.")] = 0,
    ingress: Annotated[
        IngressChoice, typer.Option(help="The front door; auto: native where it is built.")
    ] = IngressChoice.AUTO,
    identities: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Tokens and roles of people.")
    ] = None,
    policies: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Rollout policies of yours.")
    ] = None,
) -> None:
    """Run store, control and gateway on this machine until Ctrl-C; restart what dies."""
    asked: CommandContext = ctx.obj
    plan = SystemPlan(
        folder=asked.folder,
        workers=workers,
        store_url=store,
        port=port,
        ingress=ingress,
        policies=policies,
        identities=identities,
    )
    asyncio.run(_run_until_signal(plan, terminal(asked.json)))


async def _run_until_signal(plan: SystemPlan, screen: Terminal) -> None:
    """Up, told, down. Being told while starting stops what has started."""
    running = asyncio.create_task(_run_with_screen(plan, screen))
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, running.cancel)
    with suppress(asyncio.CancelledError):
        await running


async def _run_with_screen(plan: SystemPlan, screen: Terminal) -> None:
    with screen.progress() as progress:
        parts = 2 if plan.store_url else 3
        bar = progress.add_task("starting", total=parts, note="")
        async with system_up(plan, screen.note, lambda part: _step(progress, bar, part)) as system:
            progress.stop()
            screen.result(
                asdict(system.addresses), named_values(how_to_call(system.addresses, plan.folder))
            )
            screen.hint("Ctrl-C stops it.")
            await asyncio.Event().wait()


def _step(progress: Progress, bar: TaskID, part: str) -> None:
    progress.update(bar, advance=1, note=f"{part} answers")


def how_to_call(running: SystemAddresses, folder: Path) -> dict[str, str]:
    """Return where everything is, and how to talk to it."""
    told = "" if folder == Path(".turnout") else f" --folder {folder}"
    return {
        "Predict": f"{running.gateway}   turnout predict MODEL KEY{told}",
        "registry": f"{running.registry}   turnout models{told}",
        "metrics": running.metrics,
        "store": running.store,
        "logs": f"{folder}/logs",
    }
