"""Groups of people by declared attributes, and by pairs of them. Small groups are left out.

People without a value are a group of their own, because people of whom less is known may be treated
worse for it. A group with fewer than ten people is in no result, neither its name nor a count, and
no result counts its people, so nothing follows from sums and differences. Pairs of attributes with
fewer than ten people are left out; where their counts would follow from those of their neighbours,
the smallest neighbour is left out too (complementary suppression, as statistical offices do it).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PEOPLE_SHOWN_MIN = 10
"""People below which a group is never shown."""
DEPTH_MAX = 2
UNKNOWN = "unknown"
"""The value of people of whom it is not known."""


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
    members  (N,) bool. rest  (N,) bool: all other people who are counted at all.
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
    columns = [_column(item) for item in attributes]
    counted = _counted(columns)
    groups: list[Group] = []
    for column in columns:
        sizes = np.bincount(column.codes[counted], minlength=len(column.names))
        groups += _groups_of(column, sizes >= PEOPLE_SHOWN_MIN, counted)
    for first, second in combinations(columns, 2) if depth == DEPTH_MAX else ():
        shape = (len(first.names), len(second.names))
        codes = first.codes * shape[1] + second.codes
        people = np.bincount(codes[counted], minlength=shape[0] * shape[1]).reshape(shape)
        names = tuple(f"{one}, {other}" for one in first.names for other in second.names)
        groups += _groups_of(_Column(codes, names), shown_cells(people).ravel(), counted)
    return groups


class _Column(NamedTuple):
    """The groups of one attribute or of a pair: the code of each person, and the names."""

    codes: NDArray[np.int64]
    names: tuple[str, ...]


def _column(attribute: DeclaredAttribute) -> _Column:
    """Return an attribute with a code of its own for people without a value."""
    codes = np.where(attribute.codes < 0, len(attribute.values), attribute.codes)
    names = (*attribute.values, UNKNOWN)
    return _Column(codes, tuple(f"{attribute.name}={value}" for value in names))


def _counted(columns: Sequence[_Column]) -> NDArray[np.bool_]:
    """Return who is in no group of fewer than ten people, (N,) bool.

    Who is left out makes another group smaller, so it is looked again until nobody is.
    """
    counted = np.ones(len(columns[0].codes) if columns else 0, dtype=np.bool_)
    while True:
        before = counted.copy()
        for column in columns:
            sizes = np.bincount(column.codes[counted], minlength=len(column.names))
            counted &= sizes[column.codes] >= PEOPLE_SHOWN_MIN
        if np.array_equal(before, counted):
            return counted


def _groups_of(
    column: _Column, shown: NDArray[np.bool_], counted: NDArray[np.bool_]
) -> Iterator[Group]:
    """Yield the *shown* groups of a column that have ten others to be compared with."""
    for code in np.flatnonzero(shown).tolist():
        members = counted & (column.codes == code)
        rest = counted & ~members
        if int(rest.sum()) >= PEOPLE_SHOWN_MIN:
            yield Group(column.names[code], members, rest)


def shown_cells(people: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which cells of an (A, B) table of people may be shown, (A, B) bool.

    A cell needs ten people. The hidden people of a row, and of a column, must be none, or ten or
    more in two cells or more, because their sums are known: else the smallest shown cell of that
    line is hidden too.
    """
    shown = people >= PEOPLE_SHOWN_MIN
    lines = [(slice(row, row + 1), slice(None)) for row in range(people.shape[0])]
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

    values  attribute -> number of its values, without the unknown one.
    """
    sizes = [size + 1 for size in values.values()]
    groups = sum(sizes)
    if depth == DEPTH_MAX:
        groups += sum(first * second for first, second in combinations(sizes, 2))
    return max(groups * metrics, 1)
