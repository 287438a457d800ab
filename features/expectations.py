"""Declares what the rows of a load must be like, and what happens when they are not."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from features.errors import ViewError

Breach: TypeAlias = Literal["warn", "quarantine", "stop"]

BREACHES = ("warn", "quarantine", "stop")


@dataclass(frozen=True, kw_only=True)
class Expect:
    """What the values of one feature must be like in each load. None expects nothing.

    missing_max  largest share of rows, 0 to 1, in which the feature is missing.
    unknown_max  largest share of rows, 0 to 1, whose category is not in the dictionary.
    low, high    lowest and highest number, inclusive. Unlike the feature's bounds, which make a
                 value missing, they change no value.
    on_breach    "warn" stores all rows and says so. "quarantine" stores the rows that fit, and
                 writes the others to a file beside them. "stop" stores nothing.

    Raises ViewError when these contradict each other.
    """

    missing_max: float | None = None
    unknown_max: float | None = None
    low: float | None = None
    high: float | None = None
    on_breach: Breach = "warn"

    def __post_init__(self) -> None:
        _check_share("missing_max", self.missing_max)
        _check_share("unknown_max", self.unknown_max)
        _check_breach(self.on_breach)
        for name, limit in (("low", self.low), ("high", self.high)):
            if limit is not None and not _is_number(limit):
                raise ViewError(f"{name}={limit!r} is not a finite number")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ViewError(f"low={self.low} is above high={self.high}")

    def definition(self) -> dict[str, Any]:
        """Return the expectation as JSON values, for the project's definitions."""
        return asdict(self)

    @staticmethod
    def from_definition(definition: dict[str, Any]) -> "Expect":
        """Rebuild an expectation from `definition`. Raises ViewError when it does not fit."""
        try:
            return Expect(**definition)
        except TypeError as error:
            raise ViewError(f"not an expectation of a feature: {error}") from error


@dataclass(frozen=True, kw_only=True)
class ExpectRows:
    """What the rows of a view must be like in each load. None expects nothing.

    duplicates_max   largest share of rows, 0 to 1, that have the entity and the event time of a
                     later row of the load. A join that doubles rows makes them.
    newest_within_ms largest age of the newest row, in ms, when it is loaded. "quarantine" cannot
                     mend old rows, and acts as "stop".
    on_breach        as in Expect.

    Raises ViewError when these contradict each other.
    """

    duplicates_max: float | None = None
    newest_within_ms: int | None = None
    on_breach: Breach = "warn"

    def __post_init__(self) -> None:
        _check_share("duplicates_max", self.duplicates_max)
        _check_breach(self.on_breach)
        age = self.newest_within_ms
        if age is not None and (not isinstance(age, int) or isinstance(age, bool) or age <= 0):
            raise ViewError(f"newest_within_ms={age!r} is not a positive whole number of ms")

    def definition(self) -> dict[str, Any]:
        """Return the expectation as JSON values, for the project's definitions."""
        return asdict(self)

    @staticmethod
    def from_definition(definition: dict[str, Any]) -> "ExpectRows":
        """Rebuild an expectation from `definition`. Raises ViewError when it does not fit."""
        try:
            return ExpectRows(**definition)
        except TypeError as error:
            raise ViewError(f"not an expectation of rows: {error}") from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_share(name: str, share: float | None) -> None:
    if share is not None and not (_is_number(share) and 0 <= share <= 1):
        raise ViewError(f"{name}={share!r} is not a share; it lies between 0 and 1")


def _check_breach(on_breach: str) -> None:
    if on_breach not in BREACHES:
        raise ViewError(f"on_breach={on_breach!r} is not one of {', '.join(BREACHES)}")
