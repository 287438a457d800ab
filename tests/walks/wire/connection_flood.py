"""`python -m tests.walks.wire.connection_flood PORT`: connects as fast as it can.

Each connection greets and waits for the server's SETTINGS. Says then, as JSON, how often what came.
"""

import json
import select
import socket
import sys
from collections import Counter

from tests.walks.wire.http2_frames import PREFACE, SETTINGS, raw_frame

GREETING = PREFACE + raw_frame(SETTINGS, 0, 0)


def connect_and_greet(port: int) -> str:
    """Connect and greet once; what came of it."""
    with socket.socket() as caller:
        caller.settimeout(10.0)
        try:
            caller.connect(("127.0.0.1", port))
            caller.sendall(GREETING)
            return "greeted" if caller.recv(9) else "closed"
        except OSError as error:
            return type(error).__name__


def main(port: int) -> None:
    """Until stdin ends."""
    seen: Counter[str] = Counter()
    while not select.select([sys.stdin], [], [], 0)[0]:
        seen[connect_and_greet(port)] += 1
    print(json.dumps(seen))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]))
