"""The command `turnout demo`, which `make run` runs."""

import asyncio
import signal
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated

import typer

from gateway.ingress_choice import IngressChoice
from host.files import keep_files_private
from turnout.cli.arguments import GatewayHost, GatewayPort, MetricsPort
from turnout.cli.context import DEMO_FOLDER, CommandContext
from turnout.commands.up import how_to_call
from turnout.demo.context import DemoContext
from turnout.demo.screen import LiveScreen, LogScreen
from turnout.demo.story import new_checklist, prepare_folder, run_demo, wait_forever
from turnout.demo.summary import summary_json, summary_view
from turnout.processes.local_system import SystemPlan
from turnout.views.json_values import json_text
from turnout.views.terminal import Terminal, named_values, terminal

SUBSCRIBERS = 200_000
RATE = 300.0


def demo(
    ctx: typer.Context,
    once: Annotated[
        bool, typer.Option("--once", help="Stop after the last step instead of serving on.")
    ] = False,
    subscribers: Annotated[
        int, typer.Option(min=10_000, help="Number of customers, made from 7,043 real ones.")
    ] = SUBSCRIBERS,
    rate: Annotated[float, typer.Option(min=50.0, help="Customer calls a second.")] = RATE,
    workers: Annotated[int, typer.Option(min=1, help="Number of gateway workers.")] = 2,
    host: GatewayHost = "127.0.0.1",
    port: GatewayPort = 0,
    metrics_port: MetricsPort = 0,
    ingress: Annotated[
        IngressChoice,
        typer.Option(help="gRPC server of the gateway. auto: native if it is built, else grpcio."),
    ] = IngressChoice.AUTO,
) -> None:
    """Show everything on real data: features, training, approval, canary, promotion, rollback.

    With --store URL it uses that store instead of starting a new one.
    """
    context: CommandContext = ctx.obj
    keep_files_private()
    screen = terminal(context.json)
    plan = SystemPlan(
        folder=context.folder / DEMO_FOLDER,
        workers=workers,
        store_url=context.store,
        host=host,
        port=port,
        metrics_port=metrics_port,
        ingress=ingress,
    )
    # Each demo starts from an empty folder, so what it shows is what a new user sees.
    prepare_folder(plan.folder)
    passed = asyncio.run(
        _run_demo(plan, subscribers, rate, screen, stay=not (once or context.json))
    )
    # A step that failed makes `make run ONCE=1` fail.
    if not passed:
        screen.hint(f"The logs of all processes are in {plan.folder}/logs.")
        raise typer.Exit(1)


async def _run_demo(
    plan: SystemPlan, subscribers: int, rate: float, screen: Terminal, *, stay: bool
) -> bool:
    """Run the demo until it ends or a signal comes; return whether every step has passed."""
    # A terminal gets a page that redraws itself, a pipe gets plain lines.
    steps = new_checklist()
    display = (
        LiveScreen(screen.stdout, steps, time.monotonic)
        if screen.live
        else LogScreen(screen.stderr, time.monotonic)
    )
    context = DemoContext(
        plan=plan, subscribers=subscribers, rate=rate, checklist=steps, screen=display
    )
    began = time.monotonic()

    async def after_acts(context: DemoContext) -> None:
        if isinstance(display, LiveScreen):
            display.live.stop()
        _write_summary(context, screen, time.monotonic() - began)
        if stay:
            screen.stdout.print(
                "\nThe system still runs. Call it with:", named_values(_how_to_continue(context))
            )
            screen.hint("Ctrl-C stops it.")
            await wait_forever()

    # A signal cancels the demo, whose system is then stopped in order.
    running = asyncio.create_task(run_demo(context, after_acts))
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, running.cancel)
    live_page = display.live if isinstance(display, LiveScreen) else nullcontext()
    with live_page, suppress(asyncio.CancelledError):
        await running
    if not context.summary_printed:
        _write_summary(context, screen, time.monotonic() - began)
    return context.checklist.passed


def _write_summary(context: DemoContext, screen: Terminal, took_s: float) -> None:
    """Print the summary and write it to summary.json in the demo's folder."""
    context.summary_printed = True
    context.measured["took"] = f"{took_s:.1f} s"
    value = summary_json(context)
    (context.plan.folder / "summary.json").write_text(json_text(value, indent=1))
    screen.result(value, summary_view(context, steps=not screen.live))


def _how_to_continue(context: DemoContext) -> dict[str, str]:
    """Return commands for another terminal that call the demo's system, for printing."""
    commands = how_to_call(context.system, context.plan.folder)
    base = context.plan.folder.parent
    option = "" if base == Path(".turnout") else f" --folder {base}"
    return {
        **commands,
        "Predict": f"turnout predict churn S0000042{option}",
        "registry": f"turnout models{option}; turnout audit verify{option}",
        "in Python": (
            f'PredictClient("{context.system.gateway}").predict("churn", keys=["S0000042"])'
        ),
    }
