"""The error of a score that cannot be explained."""


class NotExplainedError(Exception):
    """A score cannot be explained exactly. The text says why, and what would help."""
