"""Says of which keys scored rows are kept as decisions, and for how long."""

from argparse import ArgumentTypeError
from collections.abc import Mapping
from dataclasses import dataclass, field

from host.clock import DAY_MS
from journal.prediction_id import LENGTH
from monitoring.cells.decision_rows import SAMPLE_ALL
from monitoring.errors import MonitoringError

TIME = slice(32, 38)
"""Bytes of an id that is not sealed in which its Unix milliseconds stand, in every format."""


@dataclass(frozen=True, slots=True)
class DecisionPolicy:
    """Keys are sampled by their hash, so all rows of a key are kept, or none.

    sampled_of_65536  keys whose hash mod 65,536 is below it; 0: none, 65,536: all.
    by_model          model -> the same for its keys.
    days              how long decisions are kept.

    Raises MonitoringError for a number outside of its bounds.
    """

    sampled_of_65536: int = 0
    by_model: Mapping[str, int] = field(default_factory=dict)
    days: int = 120

    def __post_init__(self) -> None:
        for sampled in (self.sampled_of_65536, *self.by_model.values()):
            if not 0 <= sampled <= SAMPLE_ALL or self.days < 1:
                raise MonitoringError(
                    f"decisions of {sampled} of {SAMPLE_ALL} keys for {self.days} days: give 0 to "
                    f"{SAMPLE_ALL} keys and a day or more"
                )


def decisions_option(text: str) -> int:
    """Return a command's option --decisions. Raises what argparse shows."""
    try:
        return DecisionPolicy(int(text)).sampled_of_65536
    except MonitoringError as error:
        raise ArgumentTypeError(str(error)) from error


def day_of_id(prediction_id: bytes) -> int | None:
    """Return the Unix day of a prediction id; None: it is sealed, or no prediction id.

    Formats of sealed ids are even numbers.
    """
    if len(prediction_id) != LENGTH or prediction_id[0] % 2 == 0:
        return None
    return int.from_bytes(prediction_id[TIME], "little") // DAY_MS
