"""Runs the steps of a demo in their order. The first step that fails ends the demo."""

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
from turnout.processes.service_tokens import trust_note
from turnout.processes.system_file import SYSTEM_FILE, read_system_file

MARKER = "demo.json"
"""File that marks a folder as made by a demo, so that the next demo may empty it."""


class DemoStoppedError(Exception):
    """A step failed; its note says why."""


DemoAct = Callable[[DemoContext, Step], Awaitable[None]]

SYSTEM = "System up"
PROMISES = {
    SYSTEM: "store, registry, controller, gateway workers and a spare",
    "Features": "real rows, offline and online from one definition, bit for bit",
    "Training": "a champion, a better candidate, and four bad ones",
    "Four eyes": "registered by one person, approved by another",
    "First deployment": "loaded and verified on every worker; then customers start calling",
    "Promotion": "shadow, 10 %, 50 %, production, watch: the controller decides each step",
    "Rollback": "a version that fails on some rows; no customer call fails",
    "NaN": "a version that answers NaN; production answers instead",
    "Too slow": "a version that is 80 ms slower; production answers instead after 50 ms",
    "Crash": "a version that crashes its shadow process; no worker dies",
    "Monitoring": "a past week in which euros became cents: found, dated, one incident",
    "Explanation": "a customer's score, input by input; the five measures of the operation",
    "Audit": "every outcome on disk, every change in a hash-chained history",
    "Customers": "every call counted; none failed",
}
"""The steps in their order, and what each promises to show."""


def _acts() -> dict[str, DemoAct]:
    """Return the acts by step.

    Their imports (scikit-learn, DuckDB, ONNX, gRPC) take seconds, so the page is shown before.
    """
    from turnout.demo import audit_acts, deploy_acts, feature_acts, monitoring_acts, version_acts

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
        "Monitoring": monitoring_acts.monitoring,
        "Explanation": monitoring_acts.explanation,
        "Audit": audit_acts.audit,
        "Customers": audit_acts.customers,
    }


def new_checklist() -> Checklist:
    """Return a checklist of all steps, each of them waiting."""
    return Checklist([Step(name, promise) for name, promise in PROMISES.items()])


def prepare_folder(folder: Path) -> None:
    """Make *folder* an empty folder with the demo's mark.

    OperatorError when it has files that no demo made, and while a demo runs in it.
    """
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            raise OperatorError(
                f"{folder} is not empty, and no demo made it; name another folder with --folder"
            )
        if (other := read_system_file(folder)) is not None:
            raise OperatorError(f"a demo runs in {folder} (pid {other.pid}); stop it first")
    # A killed demo may have left processes running. Its system.json names them, and the next start
    # ends them, so this file stays.
    system_file = folder / SYSTEM_FILE
    previous = system_file.read_bytes() if system_file.exists() else None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARKER).write_text(json.dumps({"made_by": "turnout demo"}))
    if previous is not None:
        system_file.write_bytes(previous)


async def run_demo(
    context: DemoContext, after_acts: Callable[[DemoContext], Awaitable[None]]
) -> None:
    """Run every step, then *after_acts* while the system still runs.

    When a step fails, the later ones stay waiting and *after_acts* is not called.
    """
    async with AsyncExitStack() as stack:
        # The acts are imported while the system starts.
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
        await after_acts(context)


async def _start_system(context: DemoContext, stack: AsyncExitStack) -> None:
    began = time.monotonic()

    async def start(_context: DemoContext, step: Step) -> None:
        step.note = "starting store, control and gateway"
        system = await stack.enter_async_context(
            run_system(
                context.plan, context.screen.add_line, lambda part: _note_answer(step, part, began)
            )
        )
        context.addresses = system.addresses
        context.screen.add_line(trust_note(context.plan.identities))
        step.note = (
            f"store, control, gateway ({context.plan.workers} workers and a spare) on "
            f"{context.addresses.gateway}"
        )

    await _run_act(context, SYSTEM, start)


def _note_answer(step: Step, part: str, began: float) -> None:
    step.note = f"{part} answers after {time.monotonic() - began:.1f} s"
    step.progress += 1 / 3


async def _run_act(context: DemoContext, name: str, act: DemoAct) -> None:
    """Run one step; raise DemoStoppedError when it fails. A bug keeps its traceback."""
    step = context.checklist.step(name)
    try:
        with context.checklist.timed(name):
            context.screen.step_changed(step)
            await act(context, step)
    except (StepFailedError, TimeoutError) as error:
        step.note = str(error) or f"not finished after {step.took_s:.0f} s, while: {step.note}"
        raise DemoStoppedError from error
    except Exception as error:
        message = exit_message(error)
        if message is None:
            raise
        step.note = message.text
        raise DemoStoppedError from error
    finally:
        context.screen.step_changed(step)


async def wait_forever() -> None:
    """Return only by cancellation."""
    await asyncio.Event().wait()
