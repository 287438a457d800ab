"""Starts a sandboxed child, follows its report and says in one sentence how it ended.

The child sees Python, the installed packages, the files that it is given, and a temporary folder of
bounded size. It has no network, home, environment, or other process, and it can write nothing else.
Three things stand between the child and the host:

- namespaces, by bubblewrap or by `host.sandbox.namespaces`: what the child does not see, it cannot
  name;
- a filter of system calls (`host.sandbox.seccomp`): no process, program or socket is made;
- limits on memory, CPU time, file sizes and time, and on the report, which is read as hostile.
"""

import functools
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import host
from host.child_process import describe_exit
from host.sandbox.report import MalformedReportError, ReportReader
from host.text import escape_controls

BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from host.sandbox.child import main; main(sys.argv[2])"
)
"""The first program of the child: -I -S reads no file of the user and none of site-packages."""

DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
LIBRARY_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
LIBRARY_CACHE = "/etc/ld.so.cache"
TEMP = "/tmp"  # noqa: S108  inside the sandbox, where it is a tmpfs of its own
READ_BYTES = 256 * 1024
COMPLAINT_BYTES_MAX = 4_000
"""What is read of a child's standard error, which only says why it did not start."""
GRACE_S = 10.0
"""Time from the end of the report to the end of the child."""
TRIAL_S = 20.0
SIGNALLED = 128
"""Exit code of a command that a signal ended, less the signal's number, as shells have it."""


class SandboxError(Exception):
    """The child gave no answer. The text says why, and names the step in which it ended."""


class NoSandboxError(Exception):
    """The host has no way to isolate a child."""


class Isolation(Enum):
    """How a child is kept from the host."""

    BUBBLEWRAP = "bubblewrap"
    NAMESPACES = "namespaces"
    NONE = "no isolation"
    """Only limits and the filter of system calls: the child reads and writes as its user may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLimits:
    """Bounds on one child.

    memory_mb     address space. The temporary folder comes on top of it.
    cpu_s         CPU seconds of all its threads.
    seconds       from its start to the end of its report.
    temp_mb       size of its temporary folder, and of each file there.
    answer_bytes  most bytes of its answer.
    """

    memory_mb: int = 6_144
    cpu_s: int = 120
    seconds: float = 180.0
    temp_mb: int = 512
    answer_bytes: int = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxTask:
    """What a child does.

    module    its function `answer(request: bytes, step) -> bytes` is called, once.
    packages  top-level packages that it imports and that lie outside of site-packages, such as
              rooms of an editable install. `host` is always there.
    files     path inside the sandbox -> file or folder of the host, read-only. With Isolation.NONE
              the child is given the paths of the host; see `inside_path`.
    request   bytes for the module.
    """

    module: str
    packages: tuple[str, ...]
    request: bytes
    files: Mapping[str, Path] = field(default_factory=dict)


def choose_isolation() -> Isolation:
    """Return what this host can do: bubblewrap, else namespaces.

    Raises NoSandboxError when it can do neither.
    """
    complaints = []
    for isolation in (Isolation.BUBBLEWRAP, Isolation.NAMESPACES):
        complaint = _trial(isolation)
        if complaint is None:
            return isolation
        complaints.append(f"{isolation.value}: {complaint}")
    raise NoSandboxError(
        f"this host runs no sandbox ({'; '.join(complaints)}). Install bubblewrap (Debian: "
        "apt install bubblewrap), or allow user namespaces"
    )


@functools.cache
def _trial(isolation: Isolation) -> str | None:
    """Run a program that ends at once; return why it failed, or None."""
    if sys.platform != "linux":
        return "needs Linux"
    if isolation is Isolation.BUBBLEWRAP and shutil.which("bwrap") is None:
        return "bwrap is not installed"
    python = [sys.executable, "-I", "-S", "-c", ""]
    command = _isolated(isolation, python, binds={}, packages=(), temp_mb=1)
    try:
        ended = subprocess.run(
            command, env=_environment(), capture_output=True, timeout=TRIAL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if ended.returncode == 0 else _last_line(ended.stderr)


def inside_path(isolation: Isolation, inside: str, path: Path) -> str:
    """Return the path by which a child finds *path*, which the task maps to *inside*."""
    return str(path) if isolation is Isolation.NONE else inside


def run_in_sandbox(
    task: SandboxTask,
    limits: SandboxLimits,
    isolation: Isolation,
    on_step: Callable[[str], None] = lambda _: None,
) -> bytes:
    """Run *task* in a child and return its answer, which is as trustworthy as the task's files.

    on_step  called with each step that the child says it begins, its control characters escaped.

    Raises SandboxError when the child gives no answer, and OSError when the host has no process,
    descriptor or memory to give.
    """
    reader = ReportReader(limits.answer_bytes, lambda text: on_step(escape_controls(text)))
    with tempfile.TemporaryDirectory(prefix="turnout-sandbox-") as temp:
        # Without isolation, the child's temporary folder is this one.
        environment = _environment(temp if isolation is Isolation.NONE else TEMP)
        with tempfile.TemporaryFile() as request:
            request.write(task.request)
            request.seek(0)
            child = subprocess.Popen(
                _command(task, limits, isolation),
                stdin=request,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd=temp,
            )
        try:
            complaint, late = _follow(child, reader, limits)
            code = _end(child)
        finally:
            child.kill()
            child.wait()
            for pipe in (child.stdout, child.stderr):
                assert pipe is not None
                pipe.close()
    # An answer counts only if the child came to its end.
    if reader.answer is not None and code == 0:
        return reader.answer
    raise SandboxError(escape_controls(_how_it_ended(reader, limits, complaint, late, code)))


def _follow(
    child: "subprocess.Popen[bytes]", reader: ReportReader, limits: SandboxLimits
) -> tuple[str, str]:
    """Read report and standard error until both end, or the child must end.

    Return the standard error, and why the child must end: "" when it ended by itself.
    """
    # Both pipes are read, so that neither fills and blocks the child.
    deadline = time.monotonic() + limits.seconds
    complaint = bytearray()
    assert child.stdout is not None
    assert child.stderr is not None
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        selector.register(child.stderr, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return "", f"it was not done after {limits.seconds:g} s"
            for key, _ in selector.select(left):
                data = os.read(key.fd, READ_BYTES)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is child.stderr:
                    complaint += data[: COMPLAINT_BYTES_MAX - len(complaint)]
                    continue
                # The report is judged as it comes, so that a long one is never in memory.
                try:
                    reader.feed(data) if data else reader.end()
                except MalformedReportError as error:
                    return "", f"its report is not one that Turnout's code writes: {error}"
    return _last_line(bytes(complaint)), ""


def _end(child: "subprocess.Popen[bytes]") -> int:
    """Return how the child ended: its exit code, or minus a signal's number."""
    with suppress(subprocess.TimeoutExpired):
        child.wait(GRACE_S)
    child.kill()
    code = child.wait()
    return SIGNALLED - code if code > SIGNALLED else code


def _how_it_ended(
    reader: ReportReader, limits: SandboxLimits, complaint: str, late: str, code: int
) -> str:
    during = f" while {reader.step}"
    if late:
        return f"{late}{during}"
    if reader.problem is not None:
        return reader.problem
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        # The kernel kills with either at the limit; memory of the host may also have run out.
        return (
            f"it was ended with {describe_exit(code)}{during}; it may use {limits.cpu_s} s of CPU "
            f"and {limits.memory_mb} MB"
        )
    ended = f"it ended with {describe_exit(code)}{during}, before its report was complete"
    return f"{ended}: {complaint}" if complaint else ended


def _command(task: SandboxTask, limits: SandboxLimits, isolation: Isolation) -> list[str]:
    settings = {
        "module": task.module,
        "memory_mb": limits.memory_mb,
        "cpu_s": limits.cpu_s,
        "temp_mb": limits.temp_mb,
    }
    search = [str(_rooms()), *_search_path()]
    python = [sys.executable, "-I", "-S", "-c", BOOT, json.dumps(search), json.dumps(settings)]
    if isolation is Isolation.NONE:
        return python
    binds = {to: str(path.absolute()) for to, path in task.files.items()}
    packages = ("host", *task.packages)
    return _isolated(isolation, python, binds=binds, packages=packages, temp_mb=limits.temp_mb)


def _isolated(
    isolation: Isolation,
    command: Sequence[str],
    *,
    binds: Mapping[str, str],
    packages: Sequence[str],
    temp_mb: int,
) -> list[str]:
    """Return *command* inside of namespaces.

    binds  path inside -> path of the host, read-only, beside Python and *packages*.
    """
    # Folders of the host have the same path inside; links such as /lib -> usr/lib are links too.
    folders = [folder for folder in LIBRARY_FOLDERS if Path(folder).is_dir()]
    links = [(str(Path(folder).readlink()), folder) for folder in folders if _is_link(folder)]
    paths = [folder for folder in folders if not _is_link(folder)]
    paths += [*_python_folders(), *(str(_rooms() / name) for name in packages)]
    paths += [LIBRARY_CACHE] if Path(LIBRARY_CACHE).exists() else []
    pairs = [(path, path) for path in _outermost(paths)]
    pairs += [(path, to) for to, path in binds.items()]
    # Our own program takes the same as JSON, and bubblewrap as options.
    if isolation is Isolation.NAMESPACES:
        settings = {
            "binds": pairs,
            "links": links,
            "devices": DEVICES,
            "temp_mb": temp_mb,
            "environment": _environment(),
            "command": list(command),
        }
        program = Path(__file__).with_name("namespaces.py")
        return [sys.executable, "-I", "-S", str(program), json.dumps(settings)]
    return [
        *("bwrap", "--unshare-user", "--unshare-all", "--die-with-parent", "--new-session"),
        *("--uid", "65534", "--gid", "65534", "--cap-drop", "ALL"),
        # Before the folders, because some may lie below it.
        *("--perms", "0700", "--size", str(temp_mb * 1024 * 1024), "--tmpfs", TEMP),
        *(part for path, to in pairs for part in ("--ro-bind", path, to)),
        *(part for target, to in links for part in ("--symlink", target, to)),
        *(part for device in DEVICES for part in ("--dev-bind", device, device)),
        *("--remount-ro", "/", "--chdir", TEMP, "--", *command),
    ]


def _is_link(path: str) -> bool:
    return Path(path).is_symlink()


def _rooms() -> Path:
    """Return the folder in which the rooms lie: a checkout, or site-packages."""
    return Path(str(host.__file__)).parent.parent


def _search_path() -> list[str]:
    """Return the entries of sys.path that belong to Python and its installed packages."""
    prefixes = [Path(prefix) for prefix in (sys.prefix, sys.base_prefix)]
    return [
        entry
        for entry in sys.path
        if Path(entry).name in ("site-packages", "dist-packages")
        or any(Path(entry).is_relative_to(prefix) for prefix in prefixes)
    ]


def _python_folders() -> list[str]:
    """Return the folders that Python and its packages need."""
    executable = Path(sys.executable)
    folders = [sys.prefix, sys.base_prefix, *_search_path()]
    folders += [str(executable.parent), str(executable.resolve().parent)]
    return [folder for folder in folders if Path(folder).exists()]


def _outermost(paths: Sequence[str]) -> list[str]:
    """Return *paths* without those below another one, the shortest first.

    >>> _outermost(["/usr/lib/python3", "/usr", "/opt/a", "/usr"])
    ['/usr', '/opt/a']
    """
    chosen: list[str] = []
    for path in sorted(set(paths), key=lambda path: (len(Path(path).parts), path)):
        if not any(Path(path).is_relative_to(other) for other in chosen):
            chosen.append(path)
    return sorted(chosen, key=lambda path: (len(path), path))


def _environment(temp: str = TEMP) -> dict[str, str]:
    """Return all environment variables of a child."""
    # Which kernels of OpenBLAS are right depends on the machine, and its user may know.
    numeric = {name: os.environ[name] for name in os.environ if name.startswith("OPENBLAS_")}
    return {
        **numeric,
        "PATH": "/usr/bin:/bin",
        "HOME": temp,
        "TMPDIR": temp,
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "LOKY_MAX_CPU_COUNT": "1",
        "MPLCONFIGDIR": temp,
    }


def _last_line(complaint: bytes) -> str:
    lines = complaint.decode("utf-8", "replace").strip().splitlines()
    return escape_controls(lines[-1])[:500] if lines else ""
