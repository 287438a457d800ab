"""Declares features. A view is the one definition that training sets and online rows come from."""

import math
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from features.canonical import canonical_json, sha256_hex
from features.errors import ViewError

FEATURES_MAX = 4_096
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column of a view, a float32 in every row.

    dtype       "number" or "category". A category's value is its position in *dictionary*; a
                string that is not in it has the value K, the number of entries.
    default     value of a missing feature, float32. None means NaN, for models that accept NaN.
    bounds      lowest and highest valid number. A number outside counts as missing.

    Raises ViewError when these contradict each other.
    """

    name: str
    dtype: Literal["number", "category"] = "number"
    dictionary: tuple[str, ...] = ()
    default: float | None = 0.0
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ViewError(f"feature name {self.name!r} does not match {NAME.pattern}")
        if (self.dtype == "category") != bool(self.dictionary):
            raise ViewError(
                f"feature {self.name!r} is a {self.dtype} with {len(self.dictionary)} dictionary "
                "entries; a category needs at least one, a number has none"
            )
        if len(set(self.dictionary)) != len(self.dictionary):
            raise ViewError(f"feature {self.name!r} lists a category twice in its dictionary")
        if self.default is not None and not math.isfinite(self.default):
            raise ViewError(f"feature {self.name!r} has default {self.default}; use None for NaN")
        if self.bounds is not None and not self.bounds[0] <= self.bounds[1]:
            raise ViewError(f"feature {self.name!r} has bounds {self.bounds}; put the lowest first")

    @property
    def default_value(self) -> float:
        """The default as a float; NaN if *default* is None."""
        return math.nan if self.default is None else self.default

    def definition(self) -> dict[str, Any]:
        """Return the feature as JSON values, for contract.json and for the view hash."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "dictionary": list(self.dictionary),
            "default": self.default,
            "bounds": None if self.bounds is None else list(self.bounds),
        }


@dataclass(frozen=True, kw_only=True)
class View:
    """Features of one entity, or of a combination of entities, as of an instant.

    entities       names of the key columns, in order. The ids of a combination are joined by 0x1F.
    ttl_ms         age in milliseconds above which a row is stale, offline and online.
    transform      DuckDB SQL over a table named `source`. It returns the entity columns,
                   `event_time_ms` (int64, Unix ms) and one column for each feature, by name.
    source_schema  (column, DuckDB type) pairs that the source must have.

    Raises ViewError when these contradict each other.
    """

    name: str
    entities: tuple[str, ...]
    features: tuple[Feature, ...]
    ttl_ms: int
    transform: str
    source_schema: tuple[tuple[str, str], ...] = field(default=())

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ViewError(f"view name {self.name!r} does not match {NAME.pattern}")
        names = [feature.name for feature in self.features]
        if not 0 < len(names) <= FEATURES_MAX or len(set(names)) != len(names):
            raise ViewError(
                f"view {self.name!r} has {len(names)} features, {len(set(names))} of them distinct;"
                f" it needs 1 to {FEATURES_MAX} different features"
            )
        if not self.entities or len(set(self.entities)) != len(self.entities):
            raise ViewError(
                f"view {self.name!r} has entities {self.entities}; it needs at least one, and no "
                "entity twice"
            )
        if self.ttl_ms <= 0:
            raise ViewError(f"view {self.name!r} has ttl_ms={self.ttl_ms}; it must be above 0")

    def definition(self) -> dict[str, Any]:
        """Return the view as JSON values: everything that a stored value depends on."""
        return {
            "name": self.name,
            "entities": list(self.entities),
            "features": [feature.definition() for feature in self.features],
            "ttl_ms": self.ttl_ms,
            "transform": self.transform,
            "source_schema": [list(pair) for pair in self.source_schema],
        }

    @cached_property
    def view_hash(self) -> str:
        """SHA-256 of the canonical definition, in hex. It changes whenever a value could change."""
        return sha256_hex(canonical_json(self.definition()))

    @staticmethod
    def from_definition(definition: dict[str, Any]) -> "View":
        """Rebuild a view from the return value of `definition`, or from its JSON.

        Raises ViewError when a field is missing, has another type, or contradicts another field.
        """
        try:
            return View(
                name=definition["name"],
                entities=tuple(definition["entities"]),
                features=tuple(
                    Feature(
                        name=item["name"],
                        dtype=item["dtype"],
                        dictionary=tuple(item["dictionary"]),
                        default=item["default"],
                        bounds=None if item["bounds"] is None else tuple(item["bounds"]),
                    )
                    for item in definition["features"]
                ),
                ttl_ms=definition["ttl_ms"],
                transform=definition["transform"],
                source_schema=tuple((column, kind) for column, kind in definition["source_schema"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ViewError(f"not a definition of a view: {error!r}") from error
