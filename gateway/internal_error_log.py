"""Logs the gateway's internal errors with an id that the caller sees, at a bounded rate."""

import logging
import secrets
from collections.abc import Callable
from time import monotonic

LINES_A_SECOND_MAX = 20


class InternalErrorLog:
    """Logs at most LINES_A_SECOND_MAX errors a second, and how many were left out."""

    def __init__(self, logger: logging.Logger, now_s: Callable[[], float] = monotonic) -> None:
        self._logger = logger
        self._now_s = now_s
        self._second = 0
        self._lines = 0

    def log_error(self, text: str, error: BaseException | None = None) -> str:
        """Log *text* on one line; return the error id, 8 hex digits, for the caller to quote."""
        error_id = secrets.token_hex(4)
        second = int(self._now_s())
        if second != self._second:
            if self._lines > LINES_A_SECOND_MAX:
                left_out = self._lines - LINES_A_SECOND_MAX
                self._logger.error("internal_error_lines_left_out count=%d", left_out)
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines <= LINES_A_SECOND_MAX:
            line = text.encode("unicode_escape").decode()
            self._logger.error("internal_error id=%s %s", error_id, line, exc_info=error)
        return error_id
