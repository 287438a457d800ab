"""`python -m monitoring.explain.child`: explains rows of one version in a process of its own.

It opens the version that it is given, says that it is ready, and answers requests from its socket
one after another: a line of JSON in, a line of JSON out. What a hostile version breaks is this
process. It ends when the socket closes or its parent ends.
"""

import contextlib
import json
import os
import socket
from typing import Any

from host.child_process import parse_and_confine
from host.files import unpack_files
from monitoring.explain.answers import VersionAnswers
from registry.explanation.errors import NotExplainedError
from registry.types import ScoringError, VersionRefusedError

NICE = 10
"""The processes that answer callers go first."""
REFUSALS = (NotExplainedError, VersionRefusedError, ScoringError, MemoryError)
REASON_CHARACTERS_MAX = 2_000


def answer_requests(connection: socket.socket, files: dict[str, bytes], digest: str) -> None:
    """Prepare the version, then answer until the other end of *connection* closes."""
    try:
        answers = VersionAnswers(files, digest)
    except REFUSALS as error:
        _send(connection, {"refused": _reason(error)})
        return
    _send(connection, {"ready": True})
    with connection.makefile("rb") as requests:
        for line in requests:
            try:
                reply = answers.answer(json.loads(line))
            except REFUSALS as error:
                reply = {"refused": _reason(error)}
            _send(connection, reply)


def _reason(error: Exception) -> str:
    return str(error)[:REASON_CHARACTERS_MAX] or type(error).__name__


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def main() -> None:
    """Read the command line and the packed files, and answer."""
    arguments = parse_and_confine("monitoring.explain.child", __doc__, "channel-fd", NICE)
    files = unpack_files(arguments.files_fd)
    os.close(arguments.files_fd)
    parent_gone = contextlib.suppress(BrokenPipeError, ConnectionResetError)
    with socket.socket(fileno=arguments.channel_fd) as connection, parent_gone:
        answer_requests(connection, files, arguments.digest)
    os._exit(0)  # no exit handler that the version may have left behind must run


if __name__ == "__main__":
    main()
