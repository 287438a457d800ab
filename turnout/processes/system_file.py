"""system.json: addresses and process ids of the running system.

`turnout up` writes it, and every command reads it.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from host.files import replace_file
from host.processes import start_ticks
from turnout.errors import OperatorError

SYSTEM_FILE = "system.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class SystemAddresses:
    """Addresses and process ids of one system on this machine."""

    pid: int
    """Process id of `turnout up` or `turnout demo` itself. SIGTERM to it stops the system."""
    pid_started: int
    """When it started, in clock ticks since boot, so that a reused pid is not mistaken for it."""
    store: str
    """redis:// or unix:// URL of the online store."""
    store_passwords: str = ""
    """Folder with the passwords of the users `reader` and `writer`; empty: the URL has all."""
    registry: str
    """host:port of the registry and the rollout controller."""
    gateway: str
    """host:port of the gateway."""
    features: str = ""
    """host:port of the server of pushed rows, which has the registry's certificate."""
    metrics: str
    """http:// URL of the gateway's /metrics page."""
    control_metrics: str = ""
    """http:// URL of the /metrics page of control, which needs the same token."""
    registry_certificate: str = ""
    """PEM file of the certificate of the registry and the rollout controller."""
    observe_token_file: str = ""
    """File with the bearer token that the page needs; empty: it needs none."""
    children: dict[str, tuple[int, int]] = field(default_factory=dict)
    """For each part, such as store and gateway: (pid, start in ticks) of the newest process."""

    @property
    def certificate(self) -> Path:
        """The file registry_certificate."""
        return Path(self.registry_certificate)


def read_system_file(folder: Path) -> SystemAddresses | None:
    """Return the addresses of the system that runs in *folder*; None when none runs.

    OperatorError when there is a system.json that cannot be read.
    """
    addresses = _read_file(folder)
    if addresses is None or start_ticks(addresses.pid) != addresses.pid_started:
        return None
    return addresses


def leftover_processes(folder: Path) -> list[tuple[int, int]]:
    """Return (pid, start in ticks) of the processes that an ended system of *folder* had."""
    addresses = _read_file(folder)
    return [] if addresses is None else [(pid, ticks) for pid, ticks in addresses.children.values()]


def write_system_file(folder: Path, addresses: SystemAddresses) -> None:
    """Replace system.json; a reader sees the old file or the new one."""
    text = json.dumps({"format": FORMAT, **asdict(addresses)}, indent=1)
    replace_file(folder / SYSTEM_FILE, text, durable=False)


def remove_system_file(folder: Path) -> None:
    """Remove system.json, if it is there."""
    (folder / SYSTEM_FILE).unlink(missing_ok=True)


def _read_file(folder: Path) -> SystemAddresses | None:
    try:
        text = (folder / SYSTEM_FILE).read_text(encoding="utf-8")
    except OSError:
        return None
    try:
        fields = json.loads(text)
        if fields.pop("format") != FORMAT:
            raise ValueError("another format")  # noqa: TRY301  becomes an OperatorError below
        return SystemAddresses(**fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise OperatorError(
            f"{folder / SYSTEM_FILE} is not a system's address file ({error}); remove it if no "
            "`turnout up` uses this folder"
        ) from error
