"""A system under surroundings that others have: up, a call, an outcome, a restart and a stop.

Refusals of the operating system that this machine cannot show are put in by a `sitecustomize`,
which every Python process of the system imports at its start. Everything else is real.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import tiny_files
from tests.walks.running_system import UP_TIMEOUT_S, poll_system_until
from turnout.processes.port_checks import free_tcp_port
from turnout.processes.system_file import read_system_file

pytestmark = pytest.mark.walk

NO_LETTERS = {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii",
}

REFUSE_PIDFD = "os.pidfd_open = refuse"
REFUSE_LINKS = "os.link = refuse"
REFUSE_NAMES = "import pwd\npwd.getpwuid = unknown"


@dataclass(frozen=True)
class Surrounding:
    """What surrounds every process of a system.

    environment  variables that are set; None removes one.
    refusals     statements of the sitecustomize, which has the functions `refuse` and `unknown`.
    wrapper      a command that runs the rest of its line; {state} is the system's folder.
    """

    environment: Mapping[str, str | None] = field(default_factory=dict)
    refusals: Sequence[str] = ()
    wrapper: Sequence[str] = ()


NAMELESS = Surrounding(dict.fromkeys(("USER", "LOGNAME", "LNAME", "USERNAME")), (REFUSE_NAMES,))
READ_ONLY_ROOT = (
    *("bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
    *("--bind", "{state}", "{state}", "--die-with-parent"),
)
CONTAINER = (*READ_ONLY_ROOT, "--unshare-user", "--uid", "54321", "--gid", "54321")
"""As a pod of deploy/kubernetes: a user without a name, and no folder to write in but its own."""
PROXY = f"http://127.0.0.1:{free_tcp_port()}"
PROXIES: Mapping[str, str | None] = dict.fromkeys(
    ("http_proxy", "https_proxy", "grpc_proxy"), PROXY
)

SURROUNDINGS = {
    "nameless": NAMELESS,
    "ascii": Surrounding(NO_LETTERS),
    "no_pidfd": Surrounding(refusals=(REFUSE_PIDFD,)),
    "no_links": Surrounding(refusals=(REFUSE_LINKS,)),
    "no_home": Surrounding({"HOME": "/proc/none"}),
    "proxy": Surrounding(PROXIES),
    "container": Surrounding(
        {**NAMELESS.environment, **PROXIES, "HOME": "/proc/none"},
        (REFUSE_NAMES,),
        wrapper=CONTAINER,
    ),
    "few_descriptors": Surrounding(wrapper=("prlimit", "--nofile=1024:1024")),
    "open_umask": Surrounding(wrapper=("sh", "-c", 'umask 0 && exec "$@"', "sh")),
    "far_time_zone": Surrounding({"TZ": "Pacific/Kiritimati"}),
    "read_only_root": Surrounding({"HOME": "/proc/none"}, wrapper=READ_ONLY_ROOT),
}

QUICK = Surrounding(
    {
        **NAMELESS.environment,
        **NO_LETTERS,
        **SURROUNDINGS["no_home"].environment,
        **PROXIES,
    },
    (REFUSE_NAMES, REFUSE_PIDFD, REFUSE_LINKS),
)
"""All that can be had at once, so that `make test` starts one system."""


@dataclass(frozen=True)
class HostileSystem:
    """A system whose processes and commands all have one surrounding."""

    folder: Path
    environment: Mapping[str, str]

    def turnout(self, *line: str, actor: str = "sam") -> Any:  # noqa: ANN401  any JSON
        """Run one command in a process of its own and return its JSON value."""
        program = [sys.executable, "-m", "turnout", "--json", "--folder", str(self.folder)]
        done = subprocess.run(
            [*program, *(["--as", actor] if actor else []), *line],
            env=self.environment,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        assert b"Traceback" not in done.stderr
        return json.loads(done.stdout)

    def page(self, name: str) -> str:
        """Return a page of the gateway's supervisor."""
        running = read_system_file(self.folder)
        assert running is not None
        url = f"{running.metrics.rpartition('/')[0]}/{name}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text: str = answer.read().decode()
        return text


@contextmanager
def hostile_system(base: Path, around: Surrounding) -> Iterator[HostileSystem]:
    """Run `turnout up` in *around* while the block lasts; it must end with 0 at SIGTERM."""
    # The refusals, which every Python process imports.
    site = base / "site"
    site.mkdir(exist_ok=True)
    lines = [
        "import os",
        "def refuse(*args, **options):\n    raise PermissionError(1, 'Operation not permitted')",
        "def unknown(*args):\n    raise KeyError('uid not found')",
        *around.refusals,
    ]
    (site / "sitecustomize.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    variables = {**os.environ, "PYTHONPATH": str(site), **around.environment}
    environment = {name: value for name, value in variables.items() if value is not None}
    # The system, which says its addresses once it is up. Before, it may warn of something.
    state = base / "state"
    state.mkdir(exist_ok=True)
    wrapper = [part.replace("{state}", str(state)) for part in around.wrapper]
    up = [*wrapper, sys.executable, "-m", "turnout", "up", "--json", "--folder", str(state)]
    output = base / "up.log"
    with (
        output.open("wb") as log,
        subprocess.Popen(up, env=environment, stdout=log, stderr=log) as program,
    ):
        try:
            poll_system_until(
                lambda: "\n{" in f"\n{output.read_text(errors='replace')}" or program.poll(),
                UP_TIMEOUT_S,
                "turnout up",
            )
            running = read_system_file(state)
            assert running is not None, output.read_text(errors="replace")
            yield HostileSystem(state, environment)
            os.kill(running.pid, signal.SIGTERM)
            assert program.wait(40) == 0, output.read_text(errors="replace")
        finally:
            program.kill()
    assert "Traceback" not in output.read_text(errors="replace")


def use(system: HostileSystem, base: Path) -> None:
    """Register, approve, deploy and ask a version, report an outcome and restart the workers."""
    folder = base / "version"
    folder.mkdir()
    for name, content in tiny_files("churn").items():
        (folder / name).write_bytes(content)
    label = system.turnout("versions", "register", "churn", str(folder), actor="dana")["label"]
    approval = ("versions", "approve", "churn", label, "--policy", "initial", "--yes")
    system.turnout(*approval, actor="gabriel")
    system.turnout("splits", "preload", "churn", label)
    reason = "größer → besser"
    system.turnout("splits", "set", "churn", "--production", label, "--reason", reason)
    inputs = [part for name in ("f0", "f1", "f2") for part in ("--input", f"{name}=1")]
    for _ in range(2):
        # Nobody says who asks, so the command looks for the login name.
        answer = system.turnout("predict", "churn", "S1", *inputs, actor="")
        assert answer["version"] == label
        system.turnout("outcome", answer["prediction_id"], "churned", "1", actor="")
        system.turnout("restart")
    reasons = [entry["reason"] for entry in system.turnout("audit", "list", actor="")]
    assert reason in reasons
    assert system.turnout("models", actor="")[0]["model"] == "churn"
    # A probe and a scrape, as Kubernetes and Prometheus make them.
    assert system.page("readyz") == "ready\n"
    counted = [
        line for line in system.page("metrics").splitlines() if "turnout_calls_total" in line
    ]
    assert any(f'version="{label}"' in line for line in counted)


def test_system_in_hostile_surroundings(tmp_path: Path) -> None:
    """No user name, no letters beyond ASCII, no home, a dead proxy, no pidfd and no hard links."""
    with hostile_system(tmp_path, QUICK) as system:
        use(system, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_system_in_one_surrounding(name: str, tmp_path: Path) -> None:
    """Each by itself, so that what one breaks is not mended by another."""
    around = SURROUNDINGS[name]
    if around.wrapper:
        assert shutil.which(around.wrapper[0]), f"install {around.wrapper[0]}"
    with hostile_system(tmp_path, around) as system:
        use(system, tmp_path)


@pytest.mark.nightly
def test_system_starts_again_with_keys_that_its_group_may_read(tmp_path: Path) -> None:
    """Kubernetes' fsGroup gives each file the rights of a group; they are taken away."""
    keys = tmp_path / "state" / "registry" / "keys"
    with hostile_system(tmp_path, Surrounding()):
        # A certificate is public.
        secrets = [path for path in keys.iterdir() if path.suffix != ".crt"]
    assert {path.stat().st_mode & 0o777 for path in secrets} == {0o600}
    for path in secrets:
        path.chmod(0o660)
    with hostile_system(tmp_path, Surrounding()) as system:
        assert system.turnout("models", actor="") == []
    assert {path.stat().st_mode & 0o777 for path in secrets} == {0o600}


WITHOUT_REGISTRY = """\
import asyncio, sys
if "gateway.worker" in sys.orig_argv:
    from gateway.models.registry_watch import RegistryWatch
    async def never(*args):
        await asyncio.Event().wait()
    RegistryWatch._watch = never
if "turnout" in sys.orig_argv:
    import turnout.processes.local_system
    turnout.processes.local_system.CONNECTED_S_MAX = 1.0
"""


def test_up_ends_if_its_gateway_does_not_reach_the_registry(tmp_path: Path) -> None:
    """Such a gateway is healthy, answers no call, and was once shown as a system that is up."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_REGISTRY, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "turnout", "up", "--json", "--folder", str(tmp_path / "state")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=UP_TIMEOUT_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "the gateway did not reach the registry" in done.stderr
