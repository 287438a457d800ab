"""`python -m turnout.store SOCKET FOLDER MEMORY_MB`: starts one online store, ends when it ends.

FOLDER has the passwords of the store's users (features.online.store_users).

SIGTERM ends this process and the store. When this process is killed with SIGKILL, the store stays.
The next run finds its pid in FOLDER and ends it before it starts another one.
"""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from features.online.store_server import start_protected_store
from host.processes import start_ticks

PID_FILE = "pid"
GRACE_S = 5.0


def main(arguments: list[str]) -> int:
    """Run the store until it ends or SIGTERM arrives; return its exit code (128 + signal)."""
    socket_path, folder, memory_mb_max = Path(arguments[0]), Path(arguments[1]), int(arguments[2])
    end_previous_store(folder / PID_FILE)
    server = start_protected_store(socket_path, folder, memory_mb_max)
    child = server.process
    assert child is not None

    def stop(_signum: int, _frame: FrameType | None) -> None:
        child.terminate()

    signal.signal(signal.SIGTERM, stop)
    (folder / PID_FILE).write_text(f"{child.pid} {start_ticks(child.pid)}")
    code = child.wait()
    (folder / PID_FILE).unlink(missing_ok=True)
    return code if code >= 0 else 128 - code


def end_previous_store(file: Path) -> None:
    """End the store whose pid is in *file*, if that very process still runs."""
    try:
        pid, ticks = (int(field) for field in file.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return
    for signum in (signal.SIGTERM, signal.SIGKILL):
        if start_ticks(pid) != ticks:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
        deadline = time.monotonic() + GRACE_S
        while start_ticks(pid) == ticks and time.monotonic() < deadline:
            time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
