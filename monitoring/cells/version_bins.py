"""By which bins the scores and inputs of a version are counted.

Probabilities are counted on the fixed grid of stats.score_grid, so that all versions compare. Other
outputs, and all inputs, have the edges of the version's own reference.json.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from protos import monitoring_pb2 as pb
from registry.bundle import Bundle
from stats.score_grid import SPECIAL_BINS, score_grid_edges
from stats.score_scale import CLASS_TASKS

DICTIONARY_CHARACTERS_MAX = 20_000
"""Categories of one input that are sent to readers of journals, all together."""


@dataclass(frozen=True, eq=False, slots=True)
class OutputBins:
    """One output: J = len(edges) + 1 bins, then those of NaN, +inf and -inf."""

    name: str
    edges: NDArray[np.float32]
    probability: bool
    """Whether the edges are those of the grid."""

    @property
    def size(self) -> int:
        """How many entries its column has, J + 3."""
        return len(self.edges) + 1 + SPECIAL_BINS


@dataclass(frozen=True, eq=False, slots=True)
class FeatureBins:
    """One model input: J = len(edges) + 1 bins, then the missing rows, then the unknown ones.

    A row with an unknown category is in the bin of its code too, as in reference.json; so the last
    entry says how many of the rows were unknown.
    """

    name: str
    edges: NDArray[np.float32]
    categories: int = 0
    """K codes of a dictionary, of which K itself is unknown; 0: the input is a number."""
    dictionary: tuple[str, ...] = ()
    """The K categories by their codes; empty where they are too long to be sent."""

    @property
    def missing_index(self) -> int:
        """J, where rows with NaN are counted."""
        return len(self.edges) + 1

    @property
    def unknown_index(self) -> int:
        """J + 1, where rows of an unknown category are counted."""
        return len(self.edges) + 2

    @property
    def size(self) -> int:
        """How many entries its column has: J + 2."""
        return len(self.edges) + 3


@dataclass(frozen=True, eq=False)
class VersionBins:
    """The bins of one version.

    digest8   the first 8 bytes of the version's id, as a little-endian number.
    problem   why there are no bins; rows, calls and flags are counted without them.
    """

    model: str
    version: str
    digest8: int
    outputs: tuple[OutputBins, ...] = ()
    features: tuple[FeatureBins, ...] = ()
    problem: str = field(default="")

    @property
    def lacks_dictionaries(self) -> bool:
        """Whether the categories of an input are not known, as in bins of an older release."""
        return any(feature.categories and not feature.dictionary for feature in self.features)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the inputs, in the order of the model's columns."""
        return tuple(feature.name for feature in self.features)

    def to_proto(self) -> pb.VersionBins:
        """Return the bins as a message."""
        return pb.VersionBins(
            model=self.model,
            version=self.version,
            version_digest=self.digest8,
            problem=self.problem,
            outputs=[
                pb.OutputBins(
                    name=item.name,
                    probability=item.probability,
                    edges=[] if item.probability else item.edges.tolist(),
                )
                for item in self.outputs
            ],
            features=[
                pb.FeatureBins(
                    name=item.name,
                    edges=item.edges.tolist(),
                    categories=item.categories,
                    dictionary=item.dictionary,
                )
                for item in self.features
            ],
        )

    @staticmethod
    def from_proto(message: pb.VersionBins) -> "VersionBins":
        """Return the bins in a message."""
        return VersionBins(
            message.model,
            message.version,
            message.version_digest,
            tuple(
                OutputBins(
                    item.name,
                    score_grid_edges() if item.probability else _edges(item.edges),
                    item.probability,
                )
                for item in message.outputs
            ),
            tuple(
                FeatureBins(item.name, _edges(item.edges), item.categories, tuple(item.dictionary))
                for item in message.features
            ),
            message.problem,
        )


def bins_of_bundle(model: str, version: str, bundle: Bundle) -> VersionBins:
    """Return the bins of a version whose files were verified.

    An input without edges in its reference has one bin. A version whose reference names none of its
    outputs is counted by the edges of its first output.
    """
    reference, contract = bundle.reference, bundle.contract
    probability = reference.task in CLASS_TASKS and all(
        item.spread == 1.0 for item in reference.scale.outputs
    )
    none = np.zeros(0, dtype=np.float32)
    # Every output has bins of its own, also where the scale puts rare classes into one.
    outputs = tuple(
        OutputBins(
            item.name,
            score_grid_edges() if probability else none if item.edges is None else item.edges,
            probability,
        )
        for item in reference.scale.outputs
    )
    # The dictionary of an input says how many codes it has.
    dictionaries = {item.name: tuple(item.dictionary) for item in contract.inputs}
    for use in contract.views:
        for feature in use.view.features:
            dictionaries[f"{use.view.name}:{feature.name}"] = feature.dictionary
    features = tuple(
        FeatureBins(
            name,
            reference.feature_edges.get(name, none),
            len(dictionaries.get(name, ())),
            _short(dictionaries.get(name, ())),
        )
        for name in contract.names
    )
    digest8 = int.from_bytes(bytes.fromhex(bundle.digest)[:8], "little")
    return VersionBins(model, version, digest8, outputs, features)


def _short(dictionary: tuple[str, ...]) -> tuple[str, ...]:
    """Return a dictionary that fits into a message with those of other inputs, or none."""
    return dictionary if sum(map(len, dictionary)) <= DICTIONARY_CHARACTERS_MAX else ()


def _edges(values: Sequence[float]) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)
