"""`python -m gateway.shadow.scorer`: one shadow of one worker, in a process that may die.

Opens the version it is given, then scores copies from its socket one after another, at the lowest
ordinary priority. Ends when the socket does, or with its worker.
"""

import contextlib
import os
import socket

import numpy as np

from gateway.isolation.child_process import parse_and_confine
from gateway.isolation.packed_files import unpack_files
from gateway.models.executor import Scorer, score_calls
from gateway.models.native_trees import choose_scorer
from gateway.shadow.protocol import (
    FRAME_HEADER,
    OPENED_FRAME,
    copy_body_size,
    decode_copy,
    encode_scores,
)
from registry.bundle import Session, load_session, verify_bundle, warm_up

OPENING_NICE = 10
SCORING_NICE = 19
"""Of SCHED_OTHER: SCHED_IDLE would get nothing at all beside a busy neighbour, and a shadow without
pairs holds its rollout up."""


def score_copies(connection: socket.socket, session: Session, scorer: Scorer) -> None:
    """Score until the other end is gone."""
    with connection.makefile("rb") as copies:
        connection.sendall(OPENED_FRAME)
        while head := copies.read(FRAME_HEADER.size):
            body = copies.read(copy_body_size(head, session.width))
            matrix, row_offsets = decode_copy(head, body, session.width)
            with np.errstate(all="ignore"):
                scored = score_calls(scorer, matrix, row_offsets, session.outputs)
            connection.sendall(encode_scores(scored))


def main() -> None:
    """Read the command line and the parcel, open the version, serve."""
    asked = parse_and_confine("gateway.shadow.scorer", __doc__, "channel-fd", OPENING_NICE)
    files = unpack_files(asked.files_fd)
    os.close(asked.files_fd)
    bundle = verify_bundle(files, trusted_key=None, expected_digest=asked.digest)
    session = load_session(bundle)
    warm_up(bundle, session)
    scorer = choose_scorer(bundle, session)
    os.setpriority(os.PRIO_PROCESS, 0, SCORING_NICE)
    let_go = contextlib.suppress(BrokenPipeError, ConnectionResetError)
    with socket.socket(fileno=asked.channel_fd) as line, let_go:
        score_copies(line, session, scorer)
    os._exit(0)


if __name__ == "__main__":
    main()
