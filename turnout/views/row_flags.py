"""Row flags in words."""

FLAGS = {1: "missing", 2: "stale", 4: "defaulted", 8: "degraded", 16: "not sticky"}
"""turnout.v1.RowFlag."""


def flag_words(flags: int) -> list[str]:
    """Return the words for the bits of *flags*; none for a fresh, whole row."""
    return [word for bit, word in FLAGS.items() if flags & bit]
