"""An environment of its own for `tritonclient`: its messages have our names, and other numbers.

Two definitions of inference.ModelInferRequest cannot live in one process (the protobuf pool
refuses the second), so what uses it runs beside us, from `.venv-triton`.
"""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[3]
FOLDER = HOUSE / ".venv-triton"
PINNED = "tritonclient[grpc]==2.73.0"
INSTALL_S_MAX = 300.0


def triton_python() -> Path:
    """Return the interpreter that has tritonclient, made on first use.

    Fails, in words, when it cannot be installed: a walk that is left out silently proves nothing.
    """
    python, done = FOLDER / "bin" / "python", FOLDER / f".{PINNED}"
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            _run([sys.executable, "-m", "venv", str(FOLDER)])
            _run([str(python), "-m", "pip", "install", "-q", PINNED])
            done.touch()
    return python


def _run(line: list[str]) -> None:
    try:
        told = subprocess.run(line, capture_output=True, text=True, timeout=INSTALL_S_MAX)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{' '.join(line)}: not done within {INSTALL_S_MAX:g} s", pytrace=False)
    if told.returncode:
        pytest.fail(
            f"this walk needs {PINNED} from the package registry, in {FOLDER.name} "
            f"(made once): {' '.join(line)} left with {told.returncode}:\n{told.stderr[-2000:]}",
            pytrace=False,
        )
