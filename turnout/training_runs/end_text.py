"""Says in one sentence why a training ended without a version."""

import asyncio
import errno
import resource


def end_text(error: BaseException) -> str:
    """Return why *error* ended a training, with the way out where its own words have none."""
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        return "the run was interrupted"
    if isinstance(error, MemoryError):
        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        bound = "this host has" if most == resource.RLIM_INFINITY else f"{most // 2**20} MB"
        return (
            f"the training needs more memory than {bound} ({error or 'MemoryError'}); give it "
            "more (turnout run training --memory-mb), or train on fewer rows"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({error}); make room, then queue the run again"
    return str(error) or type(error).__name__
