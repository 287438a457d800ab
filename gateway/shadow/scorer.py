"""`python -m gateway.shadow.scorer`: scores one shadow version in a process of its own.

It opens the version that it is given, then scores copies from its socket one after another, at the
lowest normal priority. It ends when the socket closes or its worker ends.
"""

import contextlib
import os
import socket

import numpy as np

from gateway.models.executor import Scorer, score_calls
from gateway.models.native_scorer import choose_scorer
from gateway.shadow.protocol import (
    FRAME_HEADER,
    OPENED_FRAME,
    copy_body_size,
    decode_copy,
    encode_scores,
)
from host.child_process import parse_and_confine
from host.files import unpack_files
from registry.bundle import verify_bundle
from registry.scoring import Session, load_session, warm_up

OPENING_NICE = 10
SCORING_NICE = 19
"""Lowest priority of SCHED_OTHER. Under SCHED_IDLE a shadow would get no CPU at all on a busy host,
and a shadow that scores nothing delays its rollout."""


def score_copies(connection: socket.socket, session: Session, scorer: Scorer) -> None:
    """Score copies until the other end of *connection* closes."""
    with connection.makefile("rb") as copies:
        connection.sendall(OPENED_FRAME)
        while header := copies.read(FRAME_HEADER.size):
            body = copies.read(copy_body_size(header, session.width))
            matrix, row_offsets = decode_copy(header, body, session.width)
            with np.errstate(all="ignore"):
                scored = score_calls(scorer, matrix, row_offsets, session.outputs)
            connection.sendall(encode_scores(scored))


def main() -> None:
    """Read the command line and the packed files, open the version, score copies."""
    arguments = parse_and_confine("gateway.shadow.scorer", __doc__, "channel-fd", OPENING_NICE)
    files = unpack_files(arguments.files_fd)
    os.close(arguments.files_fd)
    bundle = verify_bundle(files, trusted_key=None, expected_digest=arguments.digest)
    session = load_session(bundle)
    warm_up(bundle, session)
    scorer = choose_scorer(bundle, session)
    os.setpriority(os.PRIO_PROCESS, 0, SCORING_NICE)
    worker_gone = contextlib.suppress(BrokenPipeError, ConnectionResetError)
    with socket.socket(fileno=arguments.channel_fd) as connection, worker_gone:
        score_copies(connection, session, scorer)
    os._exit(0)


if __name__ == "__main__":
    main()
