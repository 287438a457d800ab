"""Row flags in words."""

ROW_FLAG_NAMES = {1: "missing", 2: "stale", 4: "defaulted", 8: "degraded", 16: "not sticky"}
"""turnout.v1.RowFlag."""


def row_flag_names(flags: int) -> list[str]:
    """Return the words for the bits of *flags*; none for a fresh, whole row."""
    return [word for bit, word in ROW_FLAG_NAMES.items() if flags & bit]
