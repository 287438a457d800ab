"""`turnout up`: runs the parts of a system on this machine until Ctrl-C."""

import asyncio
import signal
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, TaskID

from gateway.ingress_choice import IngressChoice
from host.files import keep_files_private
from turnout.cli.arguments import GatewayHost, GatewayPort, MetricsHost, MetricsPort
from turnout.cli.context import CommandContext
from turnout.processes.local_system import SystemPlan, run_system
from turnout.processes.service_tokens import trust_note
from turnout.processes.system_file import SystemAddresses
from turnout.views.terminal import Terminal, named_values, terminal


def up(
    ctx: typer.Context,
    workers: Annotated[
        int, typer.Option(min=1, help="Number of gateway workers; one for each core.")
    ] = 2,
    store_memory_mb: Annotated[
        int, typer.Option(min=16, help="Memory of a new store; beyond it writes are refused.")
    ] = 1_024,
    host: GatewayHost = "127.0.0.1",
    port: GatewayPort = 0,
    metrics_host: MetricsHost = "127.0.0.1",
    metrics_port: MetricsPort = 0,
    ingress: Annotated[
        IngressChoice,
        typer.Option(help="gRPC server of the gateway. auto: native if it is built, else grpcio."),
    ] = IngressChoice.AUTO,
    identities: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="File of people's tokens and roles."),
    ] = None,
    callers: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="File of the gateway's callers (TOML)."),
    ] = None,
    policies: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder of your rollout policies."),
    ] = None,
    decisions: Annotated[
        int | None,
        typer.Option(min=0, max=65_536, help="Keys of 65536 to keep rows of. Default: policies."),
    ] = None,
) -> None:
    """Run store, control, gateway, pushed rows and the journal's reader here until Ctrl-C.

    Each one that ends is started again. With --store URL that store is used, and none is started.
    """
    # All that the processes below write is for this user only.
    context: CommandContext = ctx.obj
    keep_files_private()
    # Where everything listens and keeps its files.
    # What cannot be started (a folder in use, a store that does not answer) raises OperatorError.
    plan = SystemPlan(
        folder=context.folder,
        workers=workers,
        store_url=context.store,
        store_memory_mb=store_memory_mb,
        host=host,
        port=port,
        metrics_host=metrics_host,
        metrics_port=metrics_port,
        ingress=ingress,
        policies=policies,
        identities=identities,
        callers=callers,
        decisions=decisions,
        notices=_notices_file(context),
    )
    # Run until Ctrl-C or SIGTERM; everything is stopped in order then.
    asyncio.run(_run_until_signal(plan, terminal(context.json)))


def _notices_file(context: CommandContext) -> Path | None:
    """Return the file of the environment if it has targets of notices, whose secrets are there."""
    environment = context.environment
    if environment is None or not environment.notice_targets():
        return None
    return environment.project.root / environment.shown


async def _run_until_signal(plan: SystemPlan, screen: Terminal) -> None:
    """Run the system until SIGINT or SIGTERM, which may also come while it starts."""
    running = asyncio.create_task(_run_with_screen(plan, screen))
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, running.cancel)
    with suppress(asyncio.CancelledError):
        await running


async def _run_with_screen(plan: SystemPlan, screen: Terminal) -> None:
    with screen.progress() as progress:
        parts = 4 if plan.store_url else 5
        bar = progress.add_task("starting", total=parts, note="")
        async with run_system(plan, screen.note, lambda part: _step(progress, bar, part)) as system:
            progress.stop()
            screen.result(
                asdict(system.addresses), named_values(how_to_call(system.addresses, plan.folder))
            )
            screen.hint(trust_note(plan.identities))
            if plan.open_to_all:
                screen.hint(f"Everybody who reaches {plan.host} may call. --callers says who may.")
            screen.hint("Ctrl-C stops it.")
            await asyncio.Event().wait()


def _step(progress: Progress, bar: TaskID, part: str) -> None:
    progress.update(bar, advance=1, note=f"{part} answers")


def how_to_call(running: SystemAddresses, folder: Path) -> dict[str, str]:
    """Return the addresses of the system and the commands that use them, for printing."""
    option = "" if folder == Path(".turnout") else f" --folder {folder}"
    return {
        "Predict": f"{running.gateway}   turnout predict MODEL KEY{option}",
        "registry": f"{running.registry}   turnout models{option}",
        "features": f"{running.features}   turnout features push FILE --view VIEW{option}",
        "metrics": running.metrics,
        "store": running.store,
        "logs": f"{folder}/logs",
    }
