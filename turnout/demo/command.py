"""`turnout demo`: the whole loop on real data, live, measured; `make run` is this."""

import asyncio
import json
import signal
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated

import typer

from gateway.ingress_choice import IngressChoice
from turnout.cli.context import DEMO_FOLDER, CommandContext
from turnout.commands.up import how_to_call
from turnout.demo.context import DemoContext
from turnout.demo.screen import LiveScreen, LogScreen
from turnout.demo.story import new_checklist, prepare_folder, run_demo, wait_forever
from turnout.demo.summary import summary_json, summary_view
from turnout.processes.local_system import SystemPlan
from turnout.views.terminal import Terminal, named_values, terminal

SUBSCRIBERS = 200_000
RATE = 300.0


def demo(
    ctx: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Leave after the last act.")] = False,
    subscribers: Annotated[
        int, typer.Option(min=10_000, help="Cloned from 7,043 real ones.")
    ] = SUBSCRIBERS,
    rate: Annotated[float, typer.Option(min=50.0, help="Customers' calls a second.")] = RATE,
    workers: Annotated[int, typer.Option(min=1, help="Gateway workers.")] = 2,
    store: Annotated[str, typer.Option(help="redis:// URL; empty: start one.")] = "",
    ingress: Annotated[
        IngressChoice, typer.Option(help="The front door; auto: native where it is built.")
    ] = IngressChoice.AUTO,
) -> None:
    """Play the loop live: data, training, approval, canary, promotion, rollback."""
    asked: CommandContext = ctx.obj
    screen = terminal(asked.json)
    plan = SystemPlan(
        folder=asked.folder / DEMO_FOLDER, workers=workers, store_url=store, ingress=ingress
    )
    prepare_folder(plan.folder)
    held = asyncio.run(_run_demo(plan, subscribers, rate, screen, stay=not (once or asked.json)))
    if not held:
        screen.hint(f"What each part wrote is in {plan.folder}/logs.")
        raise typer.Exit(1)


async def _run_demo(
    plan: SystemPlan, subscribers: int, rate: float, screen: Terminal, *, stay: bool
) -> bool:
    steps = new_checklist()
    shown = (
        LiveScreen(screen.stdout, steps, time.monotonic)
        if screen.live
        else LogScreen(screen.stderr, time.monotonic)
    )
    scene = DemoContext(
        plan=plan, subscribers=subscribers, rate=rate, checklist=steps, screen=shown
    )
    began = time.monotonic()

    async def rest(scene: DemoContext) -> None:
        if isinstance(shown, LiveScreen):
            shown.live.stop()
        _write_summary(scene, screen, time.monotonic() - began)
        if stay:
            screen.stdout.print("\nStill up; call it:", named_values(_how_to_continue(scene)))
            screen.hint("Ctrl-C stops it.")
            await wait_forever()

    playing = asyncio.create_task(run_demo(scene, rest))
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, playing.cancel)
    page = shown.live if isinstance(shown, LiveScreen) else nullcontext()
    with page, suppress(asyncio.CancelledError):
        await playing
    if not scene.summary_printed:
        _write_summary(scene, screen, time.monotonic() - began)
    return scene.checklist.passed


def _write_summary(context: DemoContext, screen: Terminal, took_s: float) -> None:
    """Print the summary and keep it in the folder."""
    context.summary_printed = True
    context.measured["took"] = f"{took_s:.1f} s"
    value = summary_json(context)
    (context.plan.folder / "summary.json").write_text(json.dumps(value, indent=1))
    screen.result(value, summary_view(context, steps=not screen.live))


def _how_to_continue(context: DemoContext) -> dict[str, str]:
    """Return how to call what the demo left running, from another terminal."""
    shown = how_to_call(context.system, context.plan.folder)
    base = context.plan.folder.parent
    told = "" if base == Path(".turnout") else f" --folder {base}"
    return {
        **shown,
        "Predict": f"turnout predict churn S0000042{told}",
        "registry": f"turnout models{told}; turnout audit verify{told}",
        "in Python": (
            f'PredictClient("{context.system.gateway}").predict("churn", keys=["S0000042"])'
        ),
    }
