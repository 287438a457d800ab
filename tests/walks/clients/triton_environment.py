"""Makes the environment `.venv-triton`, which has tritonclient.

tritonclient and this repository both define inference.ModelInferRequest. The protobuf pool of a
process accepts one definition only, so programs with tritonclient run in this environment.
"""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
FOLDER = REPOSITORY / ".venv-triton"
PINNED = "tritonclient[grpc]==2.73.0"
INSTALL_S_MAX = 300.0


def triton_python() -> Path:
    """Return the interpreter with tritonclient; the first call makes the environment.

    Fails the test when it cannot be installed, because a skipped walk proves nothing.
    """
    python, installed = FOLDER / "bin" / "python", FOLDER / f".{PINNED}"
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not installed.exists():
            _run([sys.executable, "-m", "venv", str(FOLDER)])
            _run([str(python), "-m", "pip", "install", "-q", PINNED])
            installed.touch()
    return python


def _run(line: list[str]) -> None:
    try:
        result = subprocess.run(line, capture_output=True, text=True, timeout=INSTALL_S_MAX)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{' '.join(line)}: not finished within {INSTALL_S_MAX:g} s", pytrace=False)
    if result.returncode:
        pytest.fail(
            f"this walk needs {PINNED} from the package registry, in {FOLDER.name} "
            f"(once): {' '.join(line)} exited with {result.returncode}:\n{result.stderr[-2000:]}",
            pytrace=False,
        )
