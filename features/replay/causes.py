"""Names the probable cause of differences between served and offline values of one feature."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.views import Feature

ROWS_MIN = 20
"""With fewer differences than this no cause is named."""

SHARE_MIN = 0.9
"""A cause explains at least this share of the differences."""

ROUNDING = 2.0**-18
"""Values that differ by at most this share of the larger are the same but for rounding: some 64
times the spacing of float32, as sums in another precision or order differ."""

ZONE_HOURS_MAX = 14.0
HOURS_PER_UNIT = {
    "hours": 1.0,
    "minutes": 1 / 60,
    "seconds": 1 / 3_600,
    "milliseconds": 1 / 3_600_000,
    "days": 24.0,
}
"""Units in which a feature may count time."""

TOO_FEW = "too few differences to name a cause"
UNKNOWN = "no known cause"


@dataclass(frozen=True, slots=True)
class Differences:
    """The D rows in which a feature differs, and is not late."""

    served: NDArray[np.float32]
    offline: NDArray[np.float32]
    before: NDArray[np.float32]
    """The feature in the entity's stored row before the one that was right; NaN without one."""
    after: NDArray[np.float32]
    """The feature in the stored row after the right one; NaN without one."""


def probable_cause(feature: Feature, found: Differences) -> str:
    """Return one sentence that names the cause that explains most of the differences."""
    if len(found.served) < ROWS_MIN:
        return TOO_FEW
    # The order matters: what is more special is asked first.
    causes = (
        *(_another_default, _another_dictionary, _rounding),
        *(_time_zone, _another_unit, _other_window),
    )
    for cause in causes:
        sentence = cause(feature, found)
        if sentence:
            return sentence
    return UNKNOWN


def _another_default(feature: Feature, found: Differences) -> str:
    """A missing value is replaced by another number."""
    default = np.float32(feature.default_value)
    is_default = same(found.offline, np.full_like(found.offline, default))
    value, share = _most_frequent(found.served[is_default])
    if not _explains(is_default) or share < SHARE_MIN:
        return ""
    return f"another default: {value:g} was served where the view has {default:g}"


def _another_dictionary(feature: Feature, found: Differences) -> str:
    """Each code is served as one other code."""
    if feature.dtype != "category":
        return ""
    pairs: list[tuple[float, float]] = []
    explained = 0
    for code in np.unique(found.offline[~np.isnan(found.offline)]):
        served = found.served[found.offline == code]
        value, share = _most_frequent(served)
        explained += round(share * len(served))
        pairs.append((float(code), value))
    if explained < SHARE_MIN * len(found.served) or len({value for _, value in pairs}) < len(pairs):
        return ""
    names = [*feature.dictionary, "(unknown)"]
    shown = ", ".join(
        f"{names[int(code)]!r} as {value:g}" for code, value in pairs[:3] if int(code) < len(names)
    )
    return f"another dictionary: {shown}"


def _rounding(feature: Feature, found: Differences) -> str:
    """Both are the same number but for the precision in which it was computed."""
    del feature
    served, offline = found.served.astype(np.float64), found.offline.astype(np.float64)
    largest = np.maximum(np.abs(served), np.abs(offline))
    if not _explains(np.abs(served - offline) <= ROUNDING * largest):
        return ""
    return "rounding: the values differ by the precision of their computation (float64, order)"


def _time_zone(feature: Feature, found: Differences) -> str:
    """A time is off by a constant that a time zone has."""
    del feature
    offsets = found.served.astype(np.float64) - found.offline.astype(np.float64)
    # An hour of the day wraps around at 24.
    for wraps_at, units in ((None, HOURS_PER_UNIT), (24.0, {"hours": 1.0})):
        moved = offsets if wraps_at is None else (offsets + wraps_at / 2) % wraps_at - wraps_at / 2
        offset, share = _most_frequent(np.round(moved, 6))
        if share < SHARE_MIN or offset == 0.0:
            continue
        for unit, hours_per_unit in units.items():
            hours = offset * hours_per_unit
            if 0.25 <= abs(hours) <= ZONE_HOURS_MAX and abs(hours * 4 - round(hours * 4)) < 1e-6:
                return f"time zone: served values are {hours:+g} h off, counted in {unit}"
        return f"a constant: served values are {offset:+g} off"
    return ""


def _another_unit(feature: Feature, found: Differences) -> str:
    """Each number is the same multiple of the offline one, as megabytes are of gigabytes."""
    served, offline = found.served.astype(np.float64), found.offline.astype(np.float64)
    is_ratio = (offline != 0) & np.isfinite(served) & np.isfinite(offline)
    if feature.dtype != "number" or len(np.unique(offline[is_ratio])) < ROWS_MIN:
        return ""
    ratios = served[is_ratio] / offline[is_ratio]
    usual = float(np.median(ratios))
    if (np.abs(ratios - usual) <= ROUNDING * abs(usual)).sum() < SHARE_MIN * len(served):
        return ""
    return f"another unit: served values are {usual:.6g} times those offline"


def _other_window(feature: Feature, found: Differences) -> str:
    """A window begins or ends elsewhere."""
    del feature
    for neighbour, which in ((found.before, "before"), (found.after, "after")):
        if _explains(same(found.served, neighbour)):
            return f"window: served values are those of the row {which}, off by one step"
    above = found.served > found.offline
    for side, words in (
        (above, "larger; it may be longer"),
        (~above, "smaller; it may be shorter"),
    ):
        if side.mean() >= SHARE_MIN and len(np.unique(found.served - found.offline)) > 1:
            return f"window: served values are {words} than offline"
    return ""


def _explains(explained: NDArray[np.bool_]) -> bool:
    return bool(explained.mean() >= SHARE_MIN) if len(explained) else False


def _most_frequent(values: NDArray[np.floating]) -> tuple[float, float]:
    """Return the most frequent value and its share of all values; (NaN, 0) of none."""
    if not len(values):
        return float("nan"), 0.0
    unique, counts = np.unique(values, return_counts=True)
    best = int(counts.argmax())
    return float(unique[best]), float(counts[best] / len(values))


def same(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return True where two values have the same bits, or both are NaN."""
    bits = np.ascontiguousarray(left).view(np.uint32) == np.ascontiguousarray(right).view(np.uint32)
    equal: NDArray[np.bool_] = bits | (np.isnan(left) & np.isnan(right))
    return equal
