"""`python -m tests.attacks.connection_crowd COUNT SOURCE PORT` keeps COUNT connections open.

All come from the address SOURCE, and send the HTTP/2 preface. A connection that is closed is opened
again, at most AGAIN_MAX times in all. For each line on stdin the program prints how many are open
as JSON. It ends with stdin.
"""

import json
import resource
import select
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from tests.walks.wire.http2_frames import ACK, PREFACE, SETTINGS, raw_frame

GREETING = PREFACE + raw_frame(SETTINGS, 0, 0) + raw_frame(SETTINGS, ACK, 0)
AGAIN_MAX = 8_000
AT_ONCE = 50


class CrowdProcess:
    """A process of this program, which keeps *count* connections from one address.

    prefix  words before the command, such as those of taskset.
    """

    def __init__(self, count: int, source: str, port: int, prefix: Sequence[str] = ()) -> None:
        line = [*prefix, sys.executable, "-m", "tests.attacks.connection_crowd"]
        self._program = subprocess.Popen(
            [*line, str(count), source, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def counts(self) -> dict[str, int]:
        """Return how many connections are open, are being opened, and were closed."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write("\n")
        self._program.stdin.flush()
        counts: dict[str, int] = json.loads(self._program.stdout.readline())
        return counts

    def wait_open(self, count: int) -> None:
        """Wait until *count* connections are open; fail after 30 s."""
        give_up = time.monotonic() + 30.0
        while (counts := self.counts())["open"] < count:
            assert time.monotonic() < give_up, counts
            time.sleep(0.05)

    def end(self) -> None:
        """Close all connections."""
        with self._program as program:
            assert program.stdin is not None
            program.stdin.close()
            program.wait(20)


class Crowd:
    """Many connections of one address."""

    def __init__(self, source: str, port: int) -> None:
        self._source, self._port = source, port
        self._selector = selectors.DefaultSelector()
        self.open = 0
        """Connections that the server has greeted and not closed."""
        self.connecting = 0
        self.closed = 0

    def connect(self, count: int) -> None:
        """Begin to open *count* connections."""
        for _ in range(count):
            connection = socket.socket()
            connection.setblocking(False)
            connection.bind((self._source, 0))
            connection.connect_ex(("127.0.0.1", self._port))
            self._selector.register(connection, selectors.EVENT_WRITE, "new")
            self.connecting += 1

    def turn(self, seconds: float) -> None:
        """Greet what has connected, and note what the server has greeted or closed."""
        for key, _ in self._selector.select(seconds):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            try:
                if key.data == "new":
                    connection.send(GREETING)
                    self._selector.modify(connection, selectors.EVENT_READ, "sent")
                    continue
                if not connection.recv(65_536):
                    raise ConnectionResetError
            except OSError:
                self._selector.unregister(connection)
                connection.close()
                self.closed += 1
                if key.data == "open":
                    self.open -= 1
                else:
                    self.connecting -= 1
                continue
            if key.data == "sent":
                self._selector.modify(connection, selectors.EVENT_READ, "open")
                self.open += 1
                self.connecting -= 1


def main(count: int, source: str, port: int) -> None:
    """Keep *count* connections until stdin ends; answer each line with the counts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = Crowd(source, port)
    while True:
        missing = count - crowd.open - crowd.connecting
        if missing > 0 and crowd.closed < AGAIN_MAX:
            crowd.connect(min(missing, AT_ONCE))
        crowd.turn(0.01)
        if select.select([sys.stdin], [], [], 0)[0]:
            if not sys.stdin.readline():
                return
            counts = {"open": crowd.open, "connecting": crowd.connecting, "closed": crowd.closed}
            print(json.dumps(counts), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
