"""Gives rows their segments, as the policies of their models divide customers.

A segmentation has disjoint parts, and every row is in one part of each; a row in none is in
"other". A segment is a part of a segmentation, named "tenure=new". Segmentations overlap, so a row
is in one segment of each, and beside them in the segment "", which has all rows.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monitoring.cells.version_bins import FeatureBins, VersionBins
from protos import monitoring_pb2 as pb
from registry.watching.policy import MonitoringPolicy

OTHER = "other"
SEGMENT_BYTES_MAX = 128
"""A segment with a longer name is not counted."""


class Segments(NamedTuple):
    """The segments of R rows."""

    names: tuple[tuple[str, ...], ...]
    """Each combination of segments that a row has, without the segment "" of all rows."""
    of_row: NDArray[np.intp]
    """(R,) positions in *names*."""


def segments_to_proto(model: str, policy: MonitoringPolicy) -> pb.ModelSegments:
    """Return the segmentations of a policy as readers get them."""
    message = pb.ModelSegments(model=model)
    for name, segmentation in sorted(policy.segments.items()):
        parts = [
            pb.SegmentPart(name=part, low=low, high=high)
            for part, (low, high) in segmentation.ranges.items()
        ]
        parts += [
            pb.SegmentPart(name=part, categories=members)
            for part, members in segmentation.categories.items()
        ]
        message.segmentations.add(name=name, feature=segmentation.feature, parts=parts)
    return message


class SegmentRules:
    """The segmentations of all models, applied to rows of any version."""

    def __init__(self, models: Iterable[pb.ModelSegments] = ()) -> None:
        self._models = {item.model: item for item in models if item.segmentations}
        self._resolved: dict[tuple[str, str, int], list[_Division]] = {}

    @property
    def models(self) -> frozenset[str]:
        """The models that have segmentations."""
        return frozenset(self._models)

    def __call__(self, bins: VersionBins, vectors: NDArray[np.float32]) -> Segments | None:
        """Return the segments of (R, F) inputs of a version; None: it has none.

        A version that does not read the feature of a segmentation has no segments of it.
        """
        divisions = self._divisions(bins)
        if not divisions:
            return None
        names: list[tuple[str, ...]] = [()]
        codes = np.zeros(len(vectors), dtype=np.intp)
        for division in divisions:
            # One number for each combination of what is known so far and this part.
            combined = codes * len(division.names) + division.parts_of(vectors)
            present = np.flatnonzero(np.bincount(combined))
            position = np.zeros(len(names) * len(division.names), dtype=np.intp)
            position[present] = np.arange(len(present))
            codes = position[combined]
            pairs = [divmod(code, len(division.names)) for code in present.tolist()]
            names = [(*names[before], division.names[part]) for before, part in pairs]
        return Segments(tuple(names), codes)

    def _divisions(self, bins: VersionBins) -> "Sequence[_Division]":
        if bins.model not in self._models or not bins.features:
            return ()
        version = bins.model, bins.version, bins.digest8
        if version not in self._resolved:
            found = [_division(item, bins) for item in self._models[bins.model].segmentations]
            self._resolved[version] = [item for item in found if item is not None]
        return self._resolved[version]


class _Division:
    """One segmentation of the rows of one version."""

    def __init__(self, rule: pb.Segmentation, column: int, feature: FeatureBins) -> None:
        self.names = [f"{rule.name}={part}" for part in (*(p.name for p in rule.parts), OTHER)]
        self._column = column
        self._ranges = [] if feature.dictionary else [(part.low, part.high) for part in rule.parts]
        # Part of each code; what is not named, and an unknown category, is in "other".
        self._part_of_code = np.full(feature.categories + 1, len(rule.parts), dtype=np.intp)
        code_of = {text: code for code, text in enumerate(feature.dictionary)}
        for number, part in enumerate(rule.parts):
            for text in part.categories:
                if text in code_of:
                    self._part_of_code[code_of[text]] = number

    def parts_of(self, vectors: NDArray[np.float32]) -> NDArray[np.intp]:
        """Return the (R,) positions of rows in *names*."""
        # A policy's numbers are float64, so values are compared as such.
        values = vectors[:, self._column].astype(np.float64)
        parts = np.full(len(values), len(self.names) - 1, dtype=np.intp)
        if self._ranges:
            for number, (low, high) in enumerate(self._ranges):
                parts[(values >= low) & (values < high)] = number
            return parts
        known = (values >= 0) & (values < len(self._part_of_code))
        parts[known] = self._part_of_code[values[known].astype(np.intp)]
        return parts


def _division(rule: pb.Segmentation, bins: VersionBins) -> _Division | None:
    """Return a segmentation for the columns of a version; None: it cannot be applied to it."""
    # A policy names a feature without its view.
    columns = [
        number
        for number, feature in enumerate(bins.features)
        if feature.name == rule.feature or feature.name.rpartition(":")[2] == rule.feature
    ]
    if len(columns) != 1:
        return None
    feature = bins.features[columns[0]]
    is_category = any(part.categories for part in rule.parts)
    if is_category is not bool(feature.dictionary):
        return None
    longest = max((len(f"{rule.name}={part.name}".encode()) for part in rule.parts), default=0)
    return _Division(rule, columns[0], feature) if longest <= SEGMENT_BYTES_MAX else None
