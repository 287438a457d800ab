"""A cell: the counts of one version, role, holdout and segment in one hour. Its counts only add.

A column is a vector of counts (int64) or of sums (float64). Its name says what its entries are:

    calls, rows              one entry
    row_flags                entry i: rows with bit i of turnout.v1.RowFlag
    score:OUTPUT             the bins of OutputBins
    feature:INPUT            the bins of FeatureBins
    outcome:NAME:...         the columns of monitoring.cells.outcome_columns
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monitoring.errors import BadCellError
from protos import monitoring_pb2 as pb

CALLS = "calls"
ROWS = "rows"
ROW_FLAGS = "row_flags"
FLAG_BITS = 16
"""Bits of row flags that are counted."""
COLUMN_ENTRIES_MAX = 1 << 20
"""An index at or above it is refused: it bounds what a message makes a reader allocate."""

CountVector = NDArray[np.int64] | NDArray[np.float64]


def score_column(output: str) -> str:
    """Return the name of the column with the score bins of an output."""
    return f"score:{output}"


def feature_column(name: str) -> str:
    """Return the name of the column with the bins of a model input."""
    return f"feature:{name}"


class CellKey(NamedTuple):
    """What the counts of a cell are about."""

    model: str
    version: str
    """Its label, for example "7"."""
    digest8: int
    """The first 8 bytes of the version's id, little-endian."""
    role: int
    """turnout.v1.Role as the journal has it; shadows have one of their own."""
    holdout: bool
    segment: str
    """A part of a segmentation, as "tenure=new"; empty: all rows. Rows of a model with
    segmentations are in a cell of each, so only cells of one segmentation may be added."""
    hour: int
    """Unix hour of the call."""


class CellCounts:
    """The columns of one cell, or of a sum of cells."""

    __slots__ = ("columns",)

    def __init__(self, columns: Mapping[str, CountVector] | None = None) -> None:
        self.columns: dict[str, CountVector] = dict(columns or {})

    def add(self, name: str, counts: CountVector) -> None:
        """Add one column, which is not changed. A shorter vector is extended by zeros.

        Raises BadCellError when one of the two has counts and the other sums.
        """
        present = self.columns.get(name)
        if present is None:
            self.columns[name] = counts.copy()
            return
        if present.dtype != counts.dtype:
            raise BadCellError(
                f"column {name!r} has {present.dtype} and was to be added to {counts.dtype}; "
                "counts and sums have columns of their own"
            )
        if len(present) < len(counts):
            present = np.concatenate([present, np.zeros(len(counts) - len(present), present.dtype)])
            self.columns[name] = present
        present[: len(counts)] += counts

    def add_cell(self, other: "CellCounts") -> None:
        """Add all columns of another cell."""
        for name, counts in other.columns.items():
            self.add(name, counts)

    def counts(self, name: str, size: int = 1) -> NDArray[np.int64]:
        """Return the counts of a column with *size* entries at least; zeros where it has none."""
        found = self.columns.get(name)
        length = max(size, 0 if found is None else len(found))
        counts = np.zeros(length, dtype=np.int64)
        if found is not None:
            counts[: len(found)] = found
        return counts

    @property
    def calls(self) -> int:
        """How many calls were counted."""
        return int(self.counts(CALLS)[0])

    @property
    def rows(self) -> int:
        """How many rows were counted."""
        return int(self.counts(ROWS)[0])

    def __eq__(self, other: object) -> bool:
        """Whether all columns are equal; zeros at the end of a column do not matter."""
        if not isinstance(other, CellCounts):
            return NotImplemented
        return list(self.to_columns()) == list(other.to_columns())

    __hash__ = None  # type: ignore[assignment]

    def to_columns(self) -> Iterator[pb.CountColumn]:
        """Yield the columns as messages, by name and without zeros. An empty one is left out."""
        for name in sorted(self.columns):
            vector = self.columns[name]
            index = np.flatnonzero(vector)
            if not len(index):
                continue
            column = pb.CountColumn(name=name, index=index.tolist())
            if vector.dtype == np.float64:
                column.sum.extend(vector[index].tolist())
            else:
                column.count.extend(vector[index].tolist())
            yield column

    def to_bytes(self) -> bytes:
        """Return the columns as the store keeps them, the same bytes for the same counts."""
        return pb.CellColumns(columns=self.to_columns()).SerializeToString(deterministic=True)

    @staticmethod
    def from_bytes(content: bytes) -> "CellCounts":
        """Return the counts that `to_bytes` wrote."""
        return CellCounts.from_columns(pb.CellColumns.FromString(content).columns)

    @staticmethod
    def from_columns(columns: Iterable[pb.CountColumn]) -> "CellCounts":
        """Return the counts in messages.

        Raises BadCellError for indexes that do not grow or are too large, for two columns of one
        name, and for another number of counts than of indexes.
        """
        cell = CellCounts()
        for column in columns:
            # A column has counts or sums, one for each index.
            index = np.array(column.index, dtype=np.int64)
            sums = len(column.sum) > 0
            values: CountVector = np.array(column.count, dtype=np.int64)
            if sums:
                values = np.array(column.sum, dtype=np.float64)
            if len(values) != len(index) or (sums and len(column.count)):
                raise BadCellError(
                    f"column {column.name!r} has {len(index)} indexes, {len(column.count)} counts "
                    f"and {len(column.sum)} sums; each index has one count or one sum"
                )
            if not len(index):
                continue
            if column.name in cell.columns:
                raise BadCellError(f"column {column.name!r} comes twice in one cell")
            # The largest index says how much memory the vector takes.
            if (np.diff(index) <= 0).any() or index[-1] >= COLUMN_ENTRIES_MAX:
                raise BadCellError(
                    f"the indexes of column {column.name!r} do not grow, or are not below "
                    f"{COLUMN_ENTRIES_MAX}"
                )
            if sums and not np.isfinite(values).all():
                raise BadCellError(f"column {column.name!r} has a sum that is no finite number")
            vector = np.zeros(int(index[-1]) + 1, dtype=values.dtype)
            vector[index] = values
            cell.columns[column.name] = vector  # type: ignore[assignment]  # of one of two dtypes
        return cell


def cell_to_proto(key: CellKey, counts: CellCounts) -> pb.Cell:
    """Return a cell as a reader pushes it."""
    return pb.Cell(
        model=key.model,
        version=key.version,
        version_digest=key.digest8,
        role=key.role,
        holdout=key.holdout,
        segment=key.segment,
        hour=key.hour,
        columns=counts.to_columns(),
    )


def cell_from_proto(message: pb.Cell) -> tuple[CellKey, CellCounts]:
    """Return a cell that a reader pushed. Raises BadCellError."""
    key = CellKey(
        message.model,
        message.version,
        message.version_digest,
        message.role,
        message.holdout,
        message.segment,
        message.hour,
    )
    return key, CellCounts.from_columns(message.columns)
