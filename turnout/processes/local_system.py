"""The whole system on this machine: store, control and gateway, started and stopped in order."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from features.online.store_server import StoreServerError, find_or_start
from features.online.store_url import StoreUrlError
from gateway.errors import SettingsError
from gateway.ingress_choice import IngressChoice, check_built, is_built
from turnout.errors import OperatorError, StartError
from turnout.processes.managed_process import Child, Part, end_stranger
from turnout.processes.port_checks import accepts, answers_http, free_port, pongs
from turnout.processes.service_tokens import draw_tokens
from turnout.processes.system_file import (
    Running,
    forget_running,
    left_behind,
    read_running,
    started_ticks,
    write_running,
)

STRANGER_GRACE_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run, and where its state lies."""

    folder: Path
    workers: int = 2
    store_url: str = ""
    """An online store that runs already; empty: one of our own."""
    port: int = 0
    """Of Predict; 0: a free one."""
    ingress: IngressChoice = IngressChoice.AUTO
    identities: Path | None = None
    """Tokens and roles of people (docs/governance.md); None: names are taken on trust."""
    policies: Path | None = None
    """A folder of rollout policies beside the built-in ones; None: those alone."""

    @property
    def offline(self) -> Path:
        """The offline store's Parquet files."""
        return self.folder / "offline"

    def log(self, part: str) -> Path:
        """Where *part* writes its log."""
        return self.folder / "logs" / f"{part}.log"


class System:
    """Store, control, gateway: up in this order, down in the other."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._say = say
        self._store = plan.store_url or f"redis://127.0.0.1:{free_port()}/0"
        self._control = f"127.0.0.1:{free_port()}"
        self._gateway = f"127.0.0.1:{plan.port or free_port()}"
        self._observe = f"127.0.0.1:{free_port()}"
        people = plan.identities
        self._tokens = None if people is None else draw_tokens(people, plan.folder / "tokens")
        parts = [*([] if plan.store_url else [self._store_part()])]
        parts += [self._control_part(), self._gateway_part()]
        self.children = [Child(part, say) for part in parts]

    @property
    def running(self) -> Running:
        """What system.json says of it."""
        ours = os.getpid()
        return Running(
            pid=ours,
            pid_started=started_ticks(ours) or 0,
            store=self._store,
            registry=self._control,
            gateway=self._gateway,
            metrics=f"http://{self._observe}/metrics",
            children={
                child.part.name: (child.pid, started_ticks(child.pid) or 0)
                for child in self.children
            },
        )

    def written(self) -> None:
        """Put the newest addresses and process ids into system.json."""
        write_running(self._plan.folder, self.running)

    def _store_part(self) -> Part:
        port = self._store.rpartition(":")[2].partition("/")[0]
        folder = self._plan.folder / "store"
        return Part(
            name="store",
            command=[sys.executable, "-m", "turnout.store", port, str(folder)],
            log=self._plan.log("store"),
            ready=lambda: pongs(self._store),
            ready_s_max=15.0,
            grace_s=5.0,
        )

    def _control_part(self) -> Part:
        folder = self._plan.folder / "registry"
        command = [sys.executable, "-m", "turnout.control", "--listen", self._control]
        if self._tokens is not None:
            command += ["--identities", str(self._tokens.identities)]
            command += ["--token-file", str(self._tokens.files["controller"])]
        if self._plan.policies is not None:
            command += ["--policies", str(self._plan.policies)]
        return Part(
            name="control",
            command=[*command, "--folder", str(folder)],
            log=self._plan.log("control"),
            ready=lambda: accepts(self._control),
            ready_s_max=30.0,
            grace_s=5.0,
        )

    def _gateway_part(self) -> Part:
        settings = self._plan.folder / "gateway.json"
        return Part(
            name="gateway",
            command=[sys.executable, "-m", "gateway", "--settings", str(settings)],
            log=self._plan.log("gateway"),
            ready=lambda: answers_http(f"http://{self._observe}/healthz"),
            ready_s_max=60.0,
            grace_s=20.0,
        )

    def came_back(self, child: Child) -> None:
        """Note the new process of a part that died, and what its return asks for."""
        self.written()
        if child.part.name == "store":
            self._say(
                "the store came back empty: models answer with defaults, flagged, until "
                "`turnout features materialise VIEW` fills it"
            )

    def write_settings(self) -> None:
        """Put the gateway's settings where its supervisor reads them; makes the folder."""
        self._plan.folder.mkdir(parents=True, exist_ok=True)
        host, _, port = self._gateway.rpartition(":")
        settings: dict[str, Any] = {
            "folder": str(self._plan.folder / "gateway"),
            "host": host,
            "port": int(port),
            "observe_port": int(self._observe.rpartition(":")[2]),
            "registry": self._control,
            "redis_url": self._store,
            "window_sinks": [self._control],
            "workers": self._plan.workers,
            "ingress": self._plan.ingress,
        }
        if self._tokens is not None:
            settings["registry_token_file"] = str(self._tokens.files["gateway"])
        (self._plan.folder / "gateway.json").write_text(json.dumps(settings, indent=1))


def _check_given(plan: Plan) -> None:
    try:
        find_or_start(plan.store_url, plan.folder / "store")
    except (StoreServerError, StoreUrlError) as error:
        raise StartError(str(error)) from error


async def _start(child: Child, system: System, started: Callable[[str], None]) -> None:
    await child.start()
    system.written()
    started(child.part.name)


@asynccontextmanager
async def up(
    plan: Plan, say: Callable[[str], None], started: Callable[[str], None] = lambda _: None
) -> AsyncIterator[System]:
    """Run the system while the body runs; whatever dies meanwhile is started again.

    say      is told, in a line each, of what dies and comes back.
    started  is told the name of each part once it answers.
    Raises OperatorError when one runs in this folder already, StartError when a part does not come
    up. However the body ends, every part is stopped in order: gateway, control, store.
    """
    if (other := read_running(plan.folder)) is not None:
        raise OperatorError(
            f"a system runs in {plan.folder} already (pid {other.pid}); use it, or stop it first "
            f"with: kill {other.pid}"
        )
    for pid, ticks in left_behind(plan.folder):
        await end_stranger(pid, ticks, STRANGER_GRACE_S)
    try:
        check_built(plan.ingress, there=is_built())
    except SettingsError as error:
        raise StartError(str(error)) from error
    if plan.store_url:
        await asyncio.to_thread(_check_given, plan)
    system = System(plan, say)
    system.write_settings()
    async with AsyncExitStack() as stack:
        stack.callback(forget_running, plan.folder)
        for child in system.children:
            stack.push_async_callback(child.stop)
        starting = [
            asyncio.create_task(_start(child, system, started)) for child in system.children
        ]
        try:
            await asyncio.gather(*starting)
        finally:
            for task in starting:
                task.cancel()
        keepers = [
            asyncio.create_task(child.keep(partial(system.came_back, child)))
            for child in system.children
        ]
        try:
            yield system
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
