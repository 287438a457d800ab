"""What an operator's command can end with; the type says which exit code."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command; 2 is the command line's own (a wrong option or argument)."""

    OK = 0
    FAILED = 1
    """The answer is no, or what was asked could not be done."""
    USAGE = 2
    NOT_REACHABLE = 3
    """The system, or the part of it that is needed, does not answer."""


class OperatorError(Exception):
    """What was asked could not be done; the text says why, and the way out."""

    exit = ExitCode.FAILED


class UsageError(OperatorError):
    """The command line contradicts itself."""

    exit = ExitCode.USAGE


class NotReachableError(OperatorError):
    """No system runs where the command looked, or it does not answer."""

    exit = ExitCode.NOT_REACHABLE


class StartError(OperatorError):
    """A part of the system did not come up; the text names its log."""
