"""Groups of people by declared attributes, and by pairs of them. Small groups are left out.

A group with fewer than ten people is in no result: no name, no count. Where its counts would follow
from those of its neighbours and their sum, the smallest neighbour is left out too (complementary
suppression, as statistical offices do it).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

PEOPLE_SHOWN_MIN = 10
"""People below which a group is never shown."""
DEPTH_MAX = 2


@dataclass(frozen=True, eq=False, slots=True)
class DeclaredAttribute:
    """The values of one declared attribute of N people.

    name    the attribute, as in "region".
    codes   (N,) int64, the position of each person's value; -1 where it is not known.
    values  the value of each position.

    Raises ValueError for a code that is no position.
    """

    name: str
    codes: NDArray[np.int64]
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.codes.size and not -1 <= self.codes.min() <= self.codes.max() < len(self.values):
            raise ValueError(f"{self.name}: a code is a position among {len(self.values)} values")


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Group:
    """A group with ten people or more, and those whom it is compared with.

    name     such as "region=North" or "region=North, age=18-25".
    members  (N,) bool. rest  (N,) bool: the people with other values of the same attributes, as far
             as their groups are shown.
    """

    name: str
    members: NDArray[np.bool_]
    rest: NDArray[np.bool_]

    def __repr__(self) -> str:
        return f"Group({self.name!r})"


def shown_groups(attributes: Sequence[DeclaredAttribute], depth: int = DEPTH_MAX) -> list[Group]:
    """Return the groups of each attribute and, to *depth* 2, of each pair, that may be shown.

    A group is left out too if fewer than ten people remain to compare it with. Raises ValueError
    for attributes of different lengths or with one name, and for another depth.
    """
    if depth not in {1, DEPTH_MAX} or len({len(item.codes) for item in attributes}) > 1:
        raise ValueError(f"depth {depth}: 1 or 2, and attributes are of the same people")
    if len({item.name for item in attributes}) < len(attributes):
        raise ValueError("two attributes have one name")
    single = {item.name: shown_cells(_people(item)) for item in attributes}
    groups = [
        group for item in attributes for group in _groups_of((item,), single[item.name].ravel())
    ]
    if depth == DEPTH_MAX:
        for first, second in combinations(attributes, 2):
            # A pair has its sum in the groups of either value, so both of them must be shown.
            allowed = single[first.name] & single[second.name].T
            shown = shown_cells(_people(first, second), allowed)
            groups += _groups_of((first, second), shown.ravel())
    return groups


def _people(first: DeclaredAttribute, second: DeclaredAttribute | None = None) -> NDArray[np.int64]:
    """Return the (A, B) people of each combination of values; (A, 1) of one attribute."""
    columns = len(second.values) if second else 1
    known, codes = _combined(first, second)
    counts = np.bincount(codes[known], minlength=len(first.values) * columns)
    return counts.reshape(len(first.values), columns)


def _combined(
    first: DeclaredAttribute, second: DeclaredAttribute | None
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return whose values are known, (N,) bool, and the position of each combination, (N,)."""
    if second is None:
        return first.codes >= 0, first.codes
    known = (first.codes >= 0) & (second.codes >= 0)
    return known, np.where(known, first.codes * len(second.values) + second.codes, -1)


def _groups_of(
    attributes: tuple[DeclaredAttribute, ...], shown: NDArray[np.bool_]
) -> Iterator[Group]:
    """Yield the *shown* groups, (A * B,) bool, of one attribute or of two."""
    known, codes = _combined(attributes[0], attributes[1] if len(attributes) > 1 else None)
    columns = len(attributes[-1].values) if len(attributes) > 1 else 1
    everybody = known & shown[codes] if len(shown) else known
    for code in np.flatnonzero(shown).tolist():
        members = known & (codes == code)
        rest = everybody & ~members
        if int(rest.sum()) < PEOPLE_SHOWN_MIN:
            continue
        positions = (code // columns, code % columns)
        names = [
            f"{item.name}={item.values[position]}"
            for item, position in zip(attributes, positions, strict=False)
        ]
        yield Group(", ".join(names), members, rest)


def shown_cells(
    people: NDArray[np.int64], allowed: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Return which cells of an (A, B) table of people may be shown, (A, B) bool.

    allowed  (A, B) bool, cells that may be shown at all; None: all of them.

    A cell needs ten people. The hidden people of a row, of a column and of the whole table must be
    none, or ten or more in two cells or more, because sums may be known: else the smallest shown
    cell of that line is hidden too.
    """
    shown = people >= PEOPLE_SHOWN_MIN
    if allowed is not None:
        shown &= allowed
    lines = [(slice(None), slice(None))]
    if min(people.shape) > 1:
        lines += [(slice(row, row + 1), slice(None)) for row in range(people.shape[0])]
        lines += [(slice(None), slice(column, column + 1)) for column in range(people.shape[1])]
    changed = True
    while changed:
        changed = False
        for line in lines:
            counts, part = people[line], shown[line]
            hidden = counts[~part & (counts > 0)]
            safe = not hidden.size or (hidden.sum() >= PEOPLE_SHOWN_MIN and hidden.size > 1)
            if not safe and part.any():
                smallest = np.where(part, counts, np.iinfo(np.int64).max).argmin()
                part[np.unravel_index(int(smallest), counts.shape)] = False
                changed = True
    return shown


def declared_comparisons(values: Mapping[str, int], metrics: int, depth: int = DEPTH_MAX) -> int:
    """Return how many groups and metrics are looked at, among which an error rate is shared.

    values  attribute -> number of its values.
    """
    groups = sum(values.values())
    if depth == DEPTH_MAX:
        groups += sum(first * second for first, second in combinations(values.values(), 2))
    return max(groups * metrics, 1)
