"""Makes an environment of its own for a library that this repository's environment cannot have.

The folder is `.venv-NAME` at the top of the repository. It is made once, and again when what is
asked of it changes. Versions are pinned here and not in the lock files, because nothing of these
libraries is part of Turnout.
"""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
INSTALL_S_MAX = 1_500.0


def environment_python(name: str, requirements: tuple[str, ...]) -> Path:
    """Return the interpreter that has *requirements*; the first call makes the environment.

    Fails the test when they cannot be installed, because a skipped comparison proves nothing.
    """
    folder = REPOSITORY / f".venv-{name}"
    python, installed = folder / "bin" / "python", folder / ".installed"
    wanted = "\n".join(requirements)
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not installed.exists() or installed.read_text(encoding="utf-8") != wanted:
            _run([sys.executable, "-m", "venv", str(folder)], name, wanted)
            _run([str(python), "-m", "pip", "install", "-q", *requirements], name, wanted)
            installed.write_text(wanted, encoding="utf-8")
    return python


def _run(line: list[str], name: str, wanted: str) -> None:
    try:
        result = subprocess.run(line, capture_output=True, text=True, timeout=INSTALL_S_MAX)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{' '.join(line)}: not finished within {INSTALL_S_MAX:g} s", pytrace=False)
    if result.returncode:
        pytest.fail(
            f"this test needs {wanted.split()} from the package registry, in .venv-{name} "
            f"(once): {' '.join(line)} exited with {result.returncode}:\n{result.stderr[-2000:]}",
            pytrace=False,
        )
