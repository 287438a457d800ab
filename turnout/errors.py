"""Exit codes of the `turnout` command, and the errors that lead to them."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of every command."""

    OK = 0
    FAILED = 1
    """The command could not do its work, or the answer to its question is no."""
    USAGE = 2
    """An option or an argument is wrong."""
    NOT_REACHABLE = 3
    """The system does not answer, or the part of it that the command needs does not."""
    NO_BETTER = 4
    """A training made a valid version that is not better than its champion."""


class OperatorError(Exception):
    """A command could not do its work. The text says why and what to do."""

    exit = ExitCode.FAILED


class UsageError(OperatorError):
    """An option cannot be read, or options contradict each other."""

    exit = ExitCode.USAGE


class NotReachableError(OperatorError):
    """No system runs in the state folder, or the running system does not answer."""

    exit = ExitCode.NOT_REACHABLE


class StartError(OperatorError):
    """A process of the system did not start. The text names its log."""
