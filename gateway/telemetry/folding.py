"""The interface of reply records, which the recorder folds after the replies.

A reply record is made while callers wait, so it only holds references. Folding turns many records
of one kind into counts, journal records and shadow copies at once.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.models.routes import LoadedVersion, Routes
from gateway.telemetry.observations import ObservationCounts
from gateway.telemetry.shadow_copies import ShadowCopies


@dataclass(slots=True)
class FoldedReplies:
    """The result of folding reply records of one model at one revision."""

    counts: list[tuple[LoadedVersion, int, ObservationCounts]] = field(default_factory=list)
    """(version, turnout.v1.Arm, what it did)."""
    journal_records: list[bytes] = field(default_factory=list)
    """Serialised turnout.v1.ServedBatch messages."""
    shadow_copies: list[ShadowCopies] = field(default_factory=list)


class ReplyRecord(Protocol):
    """What is left to do for some answered calls of one model at one revision."""

    @property
    def routes(self) -> Routes:
        """The routes under which the calls were answered."""
        ...

    @property
    def at_unix_ns(self) -> int:
        """When the calls were answered."""
        ...

    @property
    def group(self) -> Hashable:
        """Records of one type, routes, second and group are folded together."""
        ...

    @property
    def rows(self) -> int:
        """How many rows wait with this record."""
        ...

    @staticmethod
    def fold(records: Sequence[Any]) -> FoldedReplies:
        """Fold records of this type that have the same routes and group."""
        ...
