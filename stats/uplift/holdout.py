"""Whether the holdout is what it was drawn as. A broken one shows no number.

Three things break it: its share of customers is not the configured one, customers of it were acted
on, or customers moved into it or out of it during the period.
"""

import math
from dataclasses import dataclass

from stats.ratio import log_e_mismatch

MISMATCH_E = 1_000.0
"""The default e-value from which on the share of the holdout is not the configured one."""


@dataclass(frozen=True, slots=True)
class HoldoutCounts:
    """Customers of one period. Raises ValueError for negative counts and an impossible share.

    controls, treated  customers in and out of the holdout, at their first look.
    share              the configured share of the holdout, 0 < share < 1.
    acted_controls     customers of the holdout on whom somebody acted.
    moved              customers that were seen on both sides.
    salts              different salts of the holdout in the period.
    """

    controls: int
    treated: int
    share: float
    acted_controls: int = 0
    moved: int = 0
    salts: int = 1

    def __post_init__(self) -> None:
        counts = (self.controls, self.treated, self.acted_controls, self.moved)
        if min(counts) < 0 or self.salts < 1 or not 0.0 < self.share < 1.0:
            raise ValueError(
                f"{self}: counts are not negative, and the configured share lies between 0 and 1"
            )


@dataclass(frozen=True, slots=True)
class HoldoutIntegrity:
    """Whether the holdout is whole, the e-value of its share, and what is broken, in sentences."""

    log_e_share: float
    broken: tuple[str, ...]

    @property
    def intact(self) -> bool:
        """True if numbers may be shown."""
        return not self.broken

    @property
    def reason(self) -> str:
        """What is broken, as one text for a figure without a number."""
        return "the holdout is broken: " + "; ".join(self.broken) if self.broken else ""


def check_holdout(counts: HoldoutCounts, mismatch_e: float = MISMATCH_E) -> HoldoutIntegrity:
    """Return what is broken. The test of the share is valid at every look (Lindon and Malek).

    mismatch_e  the e-value from which on the share is another one. A share that is right ever
                reaches it with probability 1 / mismatch_e at most.
    """
    log_e = log_e_mismatch(counts.controls, counts.treated, counts.share)
    broken: list[str] = []
    if log_e >= math.log(mismatch_e):
        seen = counts.controls / (counts.controls + counts.treated)
        broken.append(
            f"{seen:.2%} of customers are in it, and {counts.share:.2%} are configured "
            f"(e-value {_shown(log_e)})"
        )
    if counts.acted_controls:
        broken.append(f"{counts.acted_controls} of its {counts.controls} customers were acted on")
    if counts.moved or counts.salts > 1:
        broken.append(
            f"it was drawn anew: {counts.moved} customers were on both sides, "
            f"under {counts.salts} salts"
        )
    return HoldoutIntegrity(log_e, tuple(broken))


def _shown(log_e: float) -> str:
    return f"10^{log_e / math.log(10):.0f}"
