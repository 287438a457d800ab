"""`python -m turnout.store PORT FOLDER`: keeps one online store running; ends when it ends.

The store is started by features.online.store_server. It dies with us on SIGTERM; should we be
killed outright, our successor finds its pid in FOLDER and ends it before it starts another.
"""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from features.online.store_server import find_or_start
from host.processes import start_ticks

PID_FILE = "pid"
GRACE_S = 5.0


def main(arguments: list[str]) -> int:
    """Run the store until it or we are ended; returns the exit code."""
    port, folder = int(arguments[0]), Path(arguments[1])
    end_previous_store(folder / PID_FILE)
    server = find_or_start(None, folder, port=port)
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
    """End the store named in *file*, if that very process still runs."""
    try:
        pid, ticks = (int(word) for word in file.read_text().split())
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
