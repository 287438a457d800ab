"""`python -m gateway.shadow.scorer`: one shadow of one worker, in a process that may die.

Opens the version it is given, then scores copies from its socket one after another, at the lowest
ordinary priority. Ends when the socket does, or with its worker.
"""

import contextlib
import os
import socket

import numpy as np

from gateway.isolation.child_process import confined
from gateway.isolation.packed_files import unpack
from gateway.models.executor import Scorer, score_calls
from gateway.models.native_trees import quicker
from gateway.shadow.protocol import HEAD, OPEN, answer_frame, copy_bytes, read_copy
from registry.bundle import Session, load, verify, warm

OPENING_NICE = 10
SCORING_NICE = 19
"""Of SCHED_OTHER: SCHED_IDLE would get nothing at all beside a busy neighbour, and a shadow without
pairs holds its rollout up."""


def serve(line: socket.socket, session: Session, scorer: Scorer) -> None:
    """Score until the other end is gone."""
    with line.makefile("rb") as copies:
        line.sendall(OPEN)
        while head := copies.read(HEAD.size):
            body = copies.read(copy_bytes(head, session.width))
            matrix, row_offsets = read_copy(head, body, session.width)
            with np.errstate(all="ignore"):
                scored = score_calls(scorer, matrix, row_offsets, session.outputs)
            line.sendall(answer_frame(scored))


def main() -> None:
    """Read the command line and the parcel, open the version, serve."""
    asked = confined("gateway.shadow.scorer", __doc__, "line-fd", OPENING_NICE)
    files = unpack(asked.parcel_fd)
    os.close(asked.parcel_fd)
    bundle = verify(files, trusted_key=None, expected_digest=asked.digest)
    session = load(bundle)
    warm(bundle, session)
    scorer = quicker(bundle, session)
    os.setpriority(os.PRIO_PROCESS, 0, SCORING_NICE)
    let_go = contextlib.suppress(BrokenPipeError, ConnectionResetError)
    with socket.socket(fileno=asked.line_fd) as line, let_go:
        serve(line, session, scorer)
    os._exit(0)


if __name__ == "__main__":
    main()
