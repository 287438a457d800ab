"""Names of the row flags."""

ROW_FLAG_NAMES = {1: "missing", 2: "stale", 4: "defaulted", 8: "degraded", 16: "not sticky"}
"""The bits of the proto enum turnout.v1.RowFlag."""


def row_flag_names(flags: int) -> list[str]:
    """Return the names of the bits of *flags*; none when every feature is there and fresh."""
    return [name for bit, name in ROW_FLAG_NAMES.items() if flags & bit]
