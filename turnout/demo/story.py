"""The play: eleven acts in order, each of which holds or stops the show."""

import asyncio
import json
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from turnout.cli.exit_codes import complaint
from turnout.demo.checklist import Checklist, NotHeldError, Step
from turnout.demo.context import Scene
from turnout.errors import OperatorError
from turnout.processes.local_system import up
from turnout.processes.system_file import read_running

MARKER = "demo.json"
"""Only a folder that has it was made by a demo, and may be wiped by the next."""


class StoppedError(Exception):
    """An act did not hold; its step says why."""


Act = Callable[[Scene, Step], Awaitable[None]]

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


def _acts() -> dict[str, Act]:
    """Load the acts: scikit-learn, DuckDB, ONNX and gRPC take seconds, and the page shows first."""
    from turnout.demo import audit_acts, deploy_acts, feature_acts, version_acts

    return {
        "Features": feature_acts.features,
        "Training": version_acts.training,
        "Four eyes": version_acts.four_eyes,
        "First deployment": deploy_acts.first_deployment,
        "Promotion": deploy_acts.promotion,
        "Rollback": deploy_acts.rollback,
        "NaN": deploy_acts.not_a_number,
        "Too slow": deploy_acts.too_slow,
        "Crash": deploy_acts.crash,
        "Audit": audit_acts.audit,
        "Customers": audit_acts.customers,
    }


def checklist() -> Checklist:
    """Return the steps, all waiting."""
    return Checklist([Step(name, promise) for name, promise in PROMISES.items()])


def fresh_folder(folder: Path) -> None:
    """Make *folder* empty and ours. OperatorError when it holds what no demo made, or is in use."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            raise OperatorError(
                f"{folder} is not empty, and no demo made it; name another with --folder"
            )
        if (other := read_running(folder)) is not None:
            raise OperatorError(f"a demo runs in {folder} (pid {other.pid}); stop it first")
    keep = folder / "system.json"
    left = keep.read_bytes() if keep.exists() else None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARKER).write_text(json.dumps({"made_by": "turnout demo"}))
    if left is not None:
        keep.write_bytes(left)  # names what a killed demo may have left running


async def play(scene: Scene, after: Callable[[Scene], Awaitable[None]]) -> None:
    """Play every act; then, with the system still up, *after*.

    A step that does not hold ends the play: the others stay unplayed, and the checklist says so.
    """
    async with AsyncExitStack() as stack:
        loading = asyncio.create_task(asyncio.to_thread(_acts))
        try:
            await _start(scene, stack)
            acts = await loading
            for name, act in acts.items():
                await _act(scene, name, act)
        except StoppedError:
            return
        finally:
            loading.cancel()
            if scene.callers is not None:
                await scene.callers.end()
        await after(scene)


async def _start(scene: Scene, stack: AsyncExitStack) -> None:
    began = time.monotonic()

    async def start(_scene: Scene, step: Step) -> None:
        step.note = "starting store, control and gateway"
        system = await stack.enter_async_context(
            up(scene.plan, scene.screen.say, lambda part: _answers(step, part, began))
        )
        scene.running = system.running
        step.note = (
            f"store, control, gateway ({scene.plan.workers} workers and a spare) on "
            f"{scene.running.gateway}"
        )

    await _act(scene, SYSTEM, start)


def _answers(step: Step, part: str, began: float) -> None:
    step.note = f"{part} answers after {time.monotonic() - began:.1f} s"
    step.done += 1 / 3


async def _act(scene: Scene, name: str, act: Act) -> None:
    """Play one act; StoppedError when it does not hold. A mistake of ours keeps its traceback."""
    step = scene.checklist.step(name)
    try:
        with scene.checklist.playing(name):
            scene.screen.turned(step)
            await act(scene, step)
    except (NotHeldError, TimeoutError) as error:
        step.note = str(error) or f"not over after {step.took_s:.0f} s; it was at: {step.note}"
        raise StoppedError from error
    except Exception as error:
        known = complaint(error)
        if known is None:
            raise
        step.note = known.text
        raise StoppedError from error
    finally:
        scene.screen.turned(step)


async def forever() -> None:
    """Stay until cancelled."""
    await asyncio.Event().wait()
