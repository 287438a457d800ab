"""The system on this machine: store, control, gateway, features and the journal's reader."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from features.online.store_server import StoreServerError, find_or_start, ping
from features.online.store_url import StoreUrlError, parse_store_url
from features.online.store_users import READER, make_passwords, password_file, url_for_user
from gateway.errors import SettingsError
from gateway.ingress_choice import IngressChoice, check_gateway_runs_here, is_built
from host.addresses import FILE_PREFIX, host_to_call, is_loopback, join_address
from host.files import replace_file
from host.processes import start_ticks
from host.unix_sockets import private_socket_path
from turnout.errors import OperatorError, StartError
from turnout.processes.managed_process import ManagedProcess, ProcessSpec, end_leftover_process
from turnout.processes.port_checks import (
    accepts_connections,
    answers_http,
    free_tcp_port,
    http_body,
)
from turnout.processes.service_tokens import make_service_tokens
from turnout.processes.system_file import (
    SystemAddresses,
    leftover_processes,
    read_system_file,
    remove_system_file,
    write_system_file,
)

KEY_FILE = "control.key"
"""The key beside the certificate that access.peer_tls makes; importing that would import gRPC."""
STORE_FILE = "store.url"
"""The file with the store's URL, for this user only. Control and features read it."""
CONNECTED_S_MAX = 30.0
LEFTOVER_GRACE_S = 10.0
STORE_PING_S = 1.0
GATEWAY_NAME = "gateway-1"
"""The gateway's name in windows and in the registry, and the actor of its token."""


@dataclass(frozen=True, kw_only=True)
class SystemPlan:
    """The options of a local system."""

    folder: Path
    """The state folder."""
    workers: int = 2
    store_url: str = ""
    """redis:// URL of an online store that runs already; empty: start a new one."""
    store_memory_mb: int = 1_024
    """Memory of a new store; beyond it writes are refused. 20 features take some 250 bytes."""
    host: str = "127.0.0.1"
    port: int = 0
    """Where the gateway's gRPC server listens; port 0: any free one."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    """Where the supervisor's pages are. Beyond loopback they need *identities*."""
    ingress: IngressChoice = IngressChoice.AUTO
    identities: Path | None = None
    """File of tokens and roles (docs/governance.md); None: actors' names are taken on trust."""
    callers: Path | None = None
    """File of the gateway's callers (docs/calling.md); None: everybody may call."""
    policies: Path | None = None
    """Folder of rollout policies beside the built-in ones; None: only the built-in ones."""
    notices: Path | None = None
    """File of an environment with targets of notices; None: no notice is sent."""
    decisions: int | None = None
    """Keys of 65,536 of which scored rows are kept; None: as the policies of models say."""

    @property
    def open_to_all(self) -> bool:
        """Whether processes of other machines may call, whoever they are."""
        return self.callers is None and not is_loopback(join_address(self.host, 0))

    @property
    def store_folder(self) -> Path:
        """Folder of the store's log, passwords and, if its path is short enough, socket."""
        return self.folder.absolute() / "store"

    @property
    def offline_folder(self) -> Path:
        """Folder of the offline store's Parquet files."""
        return self.folder / "offline"

    def log(self, part: str) -> Path:
        """Return the log file of the process called *part*."""
        return self.folder / "logs" / f"{part}.log"


class LocalSystem:
    """The processes of one local system: store, control, gateway, features, journal-reader.

    report  gets a line of text when a process ends or is back.
    """

    def __init__(self, plan: SystemPlan, report: Callable[[str], None]) -> None:
        self._plan, self._report = plan, report
        self._socket = None if plan.store_url else private_socket_path(plan.store_folder)
        self._store = plan.store_url or f"unix://{self._socket}"
        self._control = f"127.0.0.1:{free_tcp_port()}"
        self._gateway = join_address(host_to_call(plan.host), plan.port or free_tcp_port())
        self._features = f"127.0.0.1:{free_tcp_port()}"
        self._observe_address = join_address(
            host_to_call(plan.metrics_host), plan.metrics_port or free_tcp_port()
        )
        self._control_metrics = f"127.0.0.1:{free_tcp_port()}"
        self._tokens = (
            None
            if plan.identities is None
            else make_service_tokens(plan.identities, plan.folder / "tokens", GATEWAY_NAME)
        )
        # Made here and not by control, because the gateway needs it at once.
        self._certificate: Path = _make_certificate(plan.folder.absolute() / "registry" / "keys")
        specs = [] if plan.store_url else [self._store_process()]
        specs += [self._control_process(), self._gateway_process(), self._features_process()]
        specs.append(self._reader_process())
        self.processes = [ManagedProcess(spec, report) for spec in specs]

    @property
    def addresses(self) -> SystemAddresses:
        """The addresses and process ids, for system.json."""
        pid = os.getpid()
        return SystemAddresses(
            pid=pid,
            pid_started=start_ticks(pid) or 0,
            store=self._store,
            store_passwords="" if self._socket is None else str(self._plan.store_folder),
            registry=self._control,
            gateway=self._gateway,
            features=self._features,
            metrics=f"http://{self._observe_address}/metrics",
            control_metrics=f"http://{self._control_metrics}/metrics",
            observe_token_file=(
                "" if self._tokens is None else str(self._tokens.files["observer"].absolute())
            ),
            registry_certificate=str(self._certificate),
            children={
                child.spec.name: (child.pid, start_ticks(child.pid) or 0)
                for child in self.processes
            },
        )

    @property
    def _store_option(self) -> str:
        """The store's URL as an option: the path of a file, because the URL may have a password."""
        return f"{FILE_PREFIX}{self._plan.folder.absolute() / STORE_FILE}"

    def write_system_file(self) -> None:
        """Write the current addresses and process ids to system.json."""
        write_system_file(self._plan.folder, self.addresses)

    def _store_process(self) -> ProcessSpec:
        folder, memory_mb = self._plan.store_folder, str(self._plan.store_memory_mb)
        program = [sys.executable, "-P", "-m", "turnout.store"]
        return ProcessSpec(
            name="store",
            command=[*program, str(self._socket), str(folder), memory_mb],
            log=self._plan.log("store"),
            ready=self._store_answers,
            ready_s_max=15.0,
            grace_s=5.0,
        )

    async def _store_answers(self) -> bool:
        assert self._socket is not None
        address = parse_store_url(url_for_user(self._store, READER, self._plan.store_folder))
        with suppress(OSError, StoreServerError):
            return await asyncio.to_thread(ping, address, STORE_PING_S) == "PONG"
        return False

    def _control_process(self) -> ProcessSpec:
        command = [sys.executable, "-P", "-m", "turnout.control", "--listen", self._control]
        command += ["--monitoring", str(self._plan.folder / "monitoring")]
        passwords = "" if self._socket is None else str(self._plan.store_folder)
        command += ["--online-store", self._store_option, "--store-passwords", passwords]
        if self._tokens is not None:
            for file in self._tokens.identities:
                command += ["--identities", str(file)]
            command += ["--token-file", str(self._tokens.files["controller"])]
            command += ["--metrics-token-file", str(self._tokens.files["observer"])]
        command += ["--journal", str(self._plan.folder / "gateway")]
        command += ["--metrics", self._control_metrics]
        for option in ("policies", "decisions", "notices"):
            if (value := getattr(self._plan, option)) is not None:
                command += [f"--{option}", str(value)]
        return ProcessSpec(
            name="control",
            command=[*command, "--folder", str(self._plan.folder / "registry")],
            log=self._plan.log("control"),
            ready=lambda: accepts_connections(self._control),
            ready_s_max=30.0,
            grace_s=5.0,
        )

    def _gateway_process(self) -> ProcessSpec:
        settings = str(self._plan.folder / "gateway.json")
        return ProcessSpec(
            name="gateway",
            command=[sys.executable, "-P", "-m", "gateway", "--settings", settings],
            log=self._plan.log("gateway"),
            ready=lambda: answers_http(f"http://{self._observe_address}/healthz"),
            ready_s_max=60.0,
            grace_s=20.0,
        )

    def _features_process(self) -> ProcessSpec:
        """Return the server of pushed rows. It waits for store and registry by itself."""
        command = [sys.executable, "-P", "-m", "turnout", "features", "serve"]
        options = {
            "--listen": self._features,
            "--offline": self._plan.offline_folder,
            "--registry": self._control,
            "--registry-certificate": self._certificate,
            "--tls-certificate": self._certificate,
            "--tls-key": self._certificate.with_name(KEY_FILE),
            "--store": self._store_option,
        }
        if self._socket is not None:
            options["--store-passwords"] = self._plan.store_folder
        if self._tokens is not None:
            options["--token-file"] = self._tokens.files["reader"]
            for file in self._tokens.identities:
                command += ["--identities", str(file)]
        for name, value in options.items():
            command += [name, str(value)]
        return ProcessSpec(
            name="features",
            command=command,
            log=self._plan.log("features"),
            ready=lambda: accepts_connections(self._features),
            ready_s_max=60.0,
            grace_s=10.0,
        )

    def _reader_process(self) -> ProcessSpec:
        """Return the reader of the gateway's journal. It waits for monitoring by itself."""
        gateway = self._plan.folder / "gateway"
        command = [sys.executable, "-P", "-m", "monitoring.fold", "--gateway", GATEWAY_NAME]
        command += ["--journal", str(gateway / "journal"), "--keys", str(gateway / "keys.pb")]
        command += ["--monitoring", self._control, "--certificate", str(self._certificate)]
        if self._tokens is not None:
            command += ["--token-file", str(self._tokens.files["gateway"])]
        return ProcessSpec(
            name="journal-reader",
            command=command,
            log=self._plan.log("journal-reader"),
            ready=_at_once,
            ready_s_max=30.0,
            grace_s=5.0,
        )

    def on_restart(self, child: ManagedProcess) -> None:
        """Record the new process of *child*, which has been restarted."""
        self.write_system_file()
        if child.spec.name == "store":
            self._report(
                "the store is empty after its restart: answers use flagged default values "
                "until `turnout features materialise VIEW` fills it"
            )

    async def wait_connected(self) -> None:
        """Return once a worker of the gateway receives deployments from the registry.

        Without them the gateway would answer no call, and look well. Raises StartError.
        """
        page = f"http://{self._observe_address}/healthz"
        deadline = asyncio.get_running_loop().time() + CONNECTED_S_MAX
        while ", 0 of them connected" in (text := await http_body(page)) or not text:
            if asyncio.get_running_loop().time() > deadline:
                raise StartError(
                    f"the gateway did not reach the registry at {self._control} within "
                    f"{CONNECTED_S_MAX:g} s; {self._plan.log('gateway')} says why"
                )
            await asyncio.sleep(0.05)

    def write_settings(self) -> None:
        """Write what the processes read at their start; make the state folder if need be."""
        self._plan.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._plan.folder / STORE_FILE, self._store, durable=False)
        settings: dict[str, Any] = {
            "gateway": GATEWAY_NAME,
            "folder": str(self._plan.folder / "gateway"),
            "host": self._plan.host,
            "port": int(self._gateway.rpartition(":")[2]),
            "observe_host": self._plan.metrics_host,
            "metrics_port": int(self._observe_address.rpartition(":")[2]),
            "registry": self._control,
            "registry_certificate": str(self._certificate),
            "redis_url": self._store,
            "window_sinks": [self._control],
            "workers": self._plan.workers,
            "ingress": self._plan.ingress,
        }
        if self._tokens is not None:
            settings["registry_token_file"] = str(self._tokens.files["gateway"])
            settings["observe_token_file"] = str(self._tokens.files["observer"])
        if self._plan.callers is not None:
            settings["callers_file"] = str(self._plan.callers.absolute())
        if self._socket is not None:
            make_passwords(self._plan.store_folder)
            settings["redis_user"] = READER
            settings["redis_password_file"] = str(password_file(self._plan.store_folder, READER))
        replace_file(
            self._plan.folder / "gateway.json", json.dumps(settings, indent=1), durable=False
        )


async def _at_once() -> bool:
    """Return True: nothing waits for this process, and it listens on no port."""
    return True


def _make_certificate(folder: Path) -> Path:
    from access.peer_tls import PeerError, make_certificate  # imports gRPC

    try:
        return make_certificate(folder).certificate
    except PeerError as error:
        raise StartError(str(error)) from error


def _check_pages(plan: SystemPlan) -> None:
    if plan.identities is None and not is_loopback(join_address(plan.metrics_host, 0)):
        raise StartError(
            f"pages at {plan.metrics_host} show other machines what is deployed; "
            "give the system --identities, so that the pages ask for a token"
        )


def _check_given_store(plan: SystemPlan) -> None:
    try:
        find_or_start(plan.store_url, plan.store_folder)
    except (StoreServerError, StoreUrlError) as error:
        raise StartError(str(error)) from error


async def _start(
    child: ManagedProcess, system: LocalSystem, started: Callable[[str], None]
) -> None:
    await child.start()
    system.write_system_file()
    started(child.spec.name)


@asynccontextmanager
async def run_system(
    plan: SystemPlan,
    report: Callable[[str], None],
    on_started: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[LocalSystem]:
    """Run a system while the body runs; restart each process that ends meanwhile.

    report      gets a line of text when a process ends or is back.
    on_started  gets the name of each process once it answers.

    Raises OperatorError when a system runs in this folder already, and StartError when a process
    does not start. When the body ends, the processes are stopped: features first, and the store at
    last.
    """
    # Two systems in one folder would share a registry, and an earlier system may have been killed.
    if (other := read_system_file(plan.folder)) is not None:
        raise OperatorError(
            f"a system runs in {plan.folder} already (pid {other.pid}); use it, or stop it first "
            f"with: kill {other.pid}"
        )
    for pid, ticks in leftover_processes(plan.folder):
        await end_leftover_process(pid, ticks, LEFTOVER_GRACE_S)
    # What can be refused is refused before the first process starts.
    _check_pages(plan)
    try:
        check_gateway_runs_here(plan.ingress, available=is_built())
    except SettingsError as error:
        raise StartError(str(error)) from error
    if plan.store_url:
        await asyncio.to_thread(_check_given_store, plan)
    system = LocalSystem(plan, report)
    system.write_settings()
    async with AsyncExitStack() as stack:
        stack.callback(remove_system_file, plan.folder)
        for child in system.processes:
            stack.push_async_callback(child.stop)
        # All processes start at once; each waits for the others by itself.
        starting = [
            asyncio.create_task(_start(child, system, on_started)) for child in system.processes
        ]
        try:
            await asyncio.gather(*starting)
            await system.wait_connected()
        finally:
            for task in starting:
                task.cancel()
        restarting = [
            asyncio.create_task(child.restart_when_ended(partial(system.on_restart, child)))
            for child in system.processes
        ]
        try:
            yield system
        finally:
            for task in restarting:
                task.cancel()
            await asyncio.gather(*restarting, return_exceptions=True)
