"""The play: eleven acts in order, each of which holds or stops the show."""

import asyncio
import json
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from turnout.cli.exit_codes import exit_message
from turnout.demo.checklist import Checklist, Step, StepFailedError
from turnout.demo.context import DemoContext
from turnout.errors import OperatorError
from turnout.processes.local_system import run_system
from turnout.processes.system_file import read_system_file

MARKER = "demo.json"
"""Only a folder that has it was made by a demo, and may be wiped by the next."""


class DemoStoppedError(Exception):
    """An act did not hold; its step says why."""


DemoAct = Callable[[DemoContext, Step], Awaitable[None]]

SYSTEM = "System up"
PROMISES = {
    SYSTEM: "store, registry, controller, gateway workers and a spare",
    "Features": "real rows, offline and online from one definition, bit for bit",
    "Training": "a champion, a better candidate, and four bad ones",
    "Four eyes": "registered by one, approved by another",
    "First deployment": "loaded, verified, golden-tested; then customers start calling",
    "Promotion": "shadow, 10 %, 50 %, production, watched: by the controller alone",
    "Rollback": "a faulty version taken back before a customer notices",
    "NaN": "one that answers NaN: production stands in, it goes",
    "Too slow": "one that is 80 ms slower: production stands in past 50, it goes",
    "Crash": "one that crashes its process, in production's shadow: no worker dies, it goes",
    "Audit": "outcomes on disk, every change in a chained history",
    "Customers": "every call counted; none may have failed",
}
"""The steps in order, and what each is going to show."""


def _acts() -> dict[str, DemoAct]:
    """Load the acts: scikit-learn, DuckDB, ONNX and gRPC take seconds, and the page shows first."""
    from turnout.demo import audit_acts, deploy_acts, feature_acts, version_acts

    return {
        "Features": feature_acts.features,
        "Training": version_acts.training,
        "Four eyes": version_acts.four_eyes,
        "First deployment": deploy_acts.first_deployment,
        "Promotion": deploy_acts.promotion,
        "Rollback": deploy_acts.rollback,
        "NaN": deploy_acts.nan_rollback,
        "Too slow": deploy_acts.slow_rollback,
        "Crash": deploy_acts.crash_rollback,
        "Audit": audit_acts.audit,
        "Customers": audit_acts.customers,
    }


def new_checklist() -> Checklist:
    """Return the steps, all waiting."""
    return Checklist([Step(name, promise) for name, promise in PROMISES.items()])


def prepare_folder(folder: Path) -> None:
    """Make *folder* empty and ours. OperatorError when it holds what no demo made, or is in use."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            raise OperatorError(
                f"{folder} is not empty, and no demo made it; name another with --folder"
            )
        if (other := read_system_file(folder)) is not None:
            raise OperatorError(f"a demo runs in {folder} (pid {other.pid}); stop it first")
    keep = folder / "system.json"
    left = keep.read_bytes() if keep.exists() else None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARKER).write_text(json.dumps({"made_by": "turnout demo"}))
    if left is not None:
        keep.write_bytes(left)  # names what a killed demo may have left running


async def run_demo(context: DemoContext, then: Callable[[DemoContext], Awaitable[None]]) -> None:
    """Play every act; then, with the system still up, *after*.

    A step that does not hold ends the play: the others stay unplayed, and the checklist says so.
    """
    async with AsyncExitStack() as stack:
        loading = asyncio.create_task(asyncio.to_thread(_acts))
        try:
            await _start_system(context, stack)
            acts = await loading
            for name, act in acts.items():
                await _run_act(context, name, act)
        except DemoStoppedError:
            return
        finally:
            loading.cancel()
            if context.traffic is not None:
                await context.traffic.end()
        await then(context)


async def _start_system(context: DemoContext, stack: AsyncExitStack) -> None:
    began = time.monotonic()

    async def start(_scene: DemoContext, step: Step) -> None:
        step.note = "starting store, control and gateway"
        system = await stack.enter_async_context(
            run_system(
                context.plan, context.screen.add_line, lambda part: _note_answer(step, part, began)
            )
        )
        context.addresses = system.addresses
        step.note = (
            f"store, control, gateway ({context.plan.workers} workers and a spare) on "
            f"{context.addresses.gateway}"
        )

    await _run_act(context, SYSTEM, start)


def _note_answer(step: Step, part: str, began: float) -> None:
    step.note = f"{part} answers after {time.monotonic() - began:.1f} s"
    step.progress += 1 / 3


async def _run_act(context: DemoContext, name: str, act: DemoAct) -> None:
    """Play one act; DemoStoppedError when it does not hold. A mistake of ours keeps its "
    "traceback.
    """
    step = context.checklist.step(name)
    try:
        with context.checklist.timed(name):
            context.screen.step_changed(step)
            await act(context, step)
    except (StepFailedError, TimeoutError) as error:
        step.note = str(error) or f"not over after {step.took_s:.0f} s; it was at: {step.note}"
        raise DemoStoppedError from error
    except Exception as error:
        known = exit_message(error)
        if known is None:
            raise
        step.note = known.text
        raise DemoStoppedError from error
    finally:
        context.screen.step_changed(step)


async def wait_forever() -> None:
    """Stay until cancelled."""
    await asyncio.Event().wait()
