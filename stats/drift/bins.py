"""Joins bins of one table, so that every figure has enough rows in each.

J is the number of bins of a table, G the number of groups of neighbouring bins.
"""

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

EXPECTED_MIN = 5.0
"""Rows that each bin is expected to have in the smaller sample (Cochran, Biometrics 10, 1954)."""
GROUPS = 20


def quantile_groups(reference: Counts, groups: int = GROUPS) -> Counts:
    """Return the (J,) group of each bin: neighbours that hold about 1/*groups* of the reference.

    A bin is never cut, so that a bin with many rows is a group of its own. Groups count from 0
    without a gap. The table of scores has 1,022 bins, most of them nearly empty. A figure over so
    many bins would be noise, so it is taken over groups.

    Raises ValueError for a reference without rows, negative counts, or fewer than 1 group.
    """
    check_bins(reference)
    rows = int(reference.sum())
    if rows == 0 or groups < 1:
        raise ValueError(
            f"{rows} rows into {groups} groups: the reference needs rows, and one group at least"
        )
    # The middle rank of each bin says into which quantile the bin falls.
    middle = np.cumsum(reference) - reference / 2
    quantile = np.minimum((middle * groups / rows).astype(np.int64), groups - 1)
    _, group = np.unique(quantile, return_inverse=True)
    return np.asarray(group, dtype=np.int64)


def rare_bin_groups(reference: Counts, live: Counts) -> Counts:
    """Return the (J,) group of each bin, so that each group has enough rows in both samples.

    A group expects EXPECTED_MIN rows or more in the smaller sample, by the shares of both samples
    together. Below that, the corrections for chance are wrong. Neighbouring bins are joined from
    the left; what remains at the right end joins the last group.
    """
    both = reference + live
    needed = EXPECTED_MIN * both.sum() / max(min(int(reference.sum()), int(live.sum())), 1)
    group = np.zeros(len(both), dtype=np.int64)
    current, rows = 0, 0
    for index, count in enumerate(both.tolist()):
        group[index] = current
        rows += count
        if rows >= needed:
            current, rows = current + 1, 0
    if rows < needed and current > 0:
        group[group == current] = current - 1
    return group


def join_bins(counts: Counts, group: Counts) -> Counts:
    """Return the (G,) counts of groups, for (J,) *counts* and the (J,) *group* of each bin."""
    return np.bincount(group, weights=counts, minlength=int(group.max()) + 1).astype(np.int64)


def check_bins(*histograms: Counts) -> None:
    """Raise ValueError unless all are counts, (J,) whole and not negative, on one table."""
    for counts in histograms:
        if counts.shape != histograms[0].shape or counts.ndim != 1 or not len(counts):
            raise ValueError(
                f"histograms of the shapes {[item.shape for item in histograms]} cannot be "
                "compared; count all on one table of bins"
            )
        if counts.dtype.kind not in "iu" or counts.min() < 0:
            raise ValueError(
                f"a histogram of {counts.dtype} from {counts.min()}: counts are whole numbers "
                "and not negative"
            )
