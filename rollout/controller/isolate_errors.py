"""One rollout's trouble is its own: what it raises holds it, and no other."""

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from registry.types import RegistryError
from rollout.lifecycle.rollout import Rollout

log = logging.getLogger(__name__)


@contextmanager
def isolate_errors(rollout: Rollout, notify: Callable[[], None]) -> Iterator[None]:
    """Count, judge or keep *trial* in the body; when that raises, hold it and say so.

    What the registry raises is not the rollout's, and passes.
    tell  wakes those who watch the status.
    """
    try:
        yield
    except RegistryError:
        raise
    except Exception as error:  # whatever it was, it is this rollout's alone
        error_id = secrets.token_hex(4)
        log.exception("rollout %s: error %s", rollout.spec.rollout_id, error_id)
        rollout.judging_error = (
            f"judging it raised {type(error).__name__} (error {error_id}; the controller's log has "
            "its cause), and what was counted may lack something: abort it, or resume it to go on "
            "all the same"
        )
        if not rollout.ended:
            rollout.hold(rollout.judging_error)
        notify()
