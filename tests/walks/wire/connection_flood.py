"""`python -m tests.walks.wire.connection_flood PORT` opens connections as fast as it can.

Each connection sends its preface and waits for the server's SETTINGS. The program prints a line
after its first connection. When stdin ends, it prints as JSON how often each result came.
"""

import json
import select
import socket
import sys
from collections import Counter

from tests.walks.wire.http2_frames import PREFACE, SETTINGS, raw_frame

GREETING = PREFACE + raw_frame(SETTINGS, 0, 0)


def connect_and_greet(port: int) -> str:
    """Connect and send the preface once; return "greeted", "closed" or the error's name."""
    with socket.socket() as caller:
        caller.settimeout(10.0)
        try:
            caller.connect(("127.0.0.1", port))
            caller.sendall(GREETING)
            return "greeted" if caller.recv(9) else "closed"
        except OSError as error:
            return type(error).__name__


def main(port: int) -> None:
    """Connect until stdin ends, then print the results."""
    results = Counter([connect_and_greet(port)])
    print("began", flush=True)  # noqa: T201
    while not select.select([sys.stdin], [], [], 0)[0]:
        results[connect_and_greet(port)] += 1
    print(json.dumps(results))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]))
