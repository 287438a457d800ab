"""Keeps an error in one rollout from stopping the others."""

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from registry.types import RegistryError
from rollout.lifecycle.rollout import Rollout

log = logging.getLogger(__name__)


@contextmanager
def isolate_errors(rollout: Rollout, notify: Callable[[], None]) -> Iterator[None]:
    """Run the body, which counts, judges or saves *rollout*. Hold the rollout if the body raises.

    The log has the traceback under an error id, and the rollout's status names that id. A person
    ends the rollout or resumes it. RegistryError passes through: the registry is not part of the
    rollout, and the caller tries again.

    notify  wakes those that watch the status.
    """
    try:
        yield
    except RegistryError:
        raise
    except Exception as error:
        error_id = secrets.token_hex(4)
        log.exception("rollout %s: error %s", rollout.spec.rollout_id, error_id)
        rollout.judging_error = (
            f"judging it raised {type(error).__name__} (error {error_id}; the controller's log has "
            "its cause), and what was counted may lack something: abort it, or resume it to go on "
            "all the same"
        )
        # A rollout that has ended keeps its last reason: holding means nothing any more, and the
        # history shows why it ended.
        if not rollout.ended:
            rollout.hold(rollout.judging_error)
        notify()
