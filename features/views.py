"""Declares features. A view is the one definition that training sets and online rows come from."""

import importlib.util
import math
import re
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import Any, Literal

from features.canonical import canonical_json, sha256_hex
from features.errors import ViewError
from features.expectations import Expect, ExpectRows
from features.source import Source
from features.transforms import check_transform

FEATURES_MAX = 4_096
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

FLOAT32_MAX = 3.4028234663852886e38

RESERVED_NAMES = ("event_time_ms", "created_ms")
"""Columns of a transform that are instants, so that no feature or entity may have these names."""


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
        if self.dtype not in {"number", "category"}:
            raise ViewError(f"feature {self.name!r} has dtype {self.dtype!r}; number or category")
        if (self.dtype == "category") != bool(self.dictionary):
            raise ViewError(
                f"feature {self.name!r} is a {self.dtype} with {len(self.dictionary)} dictionary "
                "entries; a category needs at least one, a number has none"
            )
        if isinstance(self.dictionary, str) or not all(
            isinstance(entry, str) for entry in self.dictionary
        ):
            raise ViewError(f"feature {self.name!r} needs a tuple of strings as its dictionary")
        if len(set(self.dictionary)) != len(self.dictionary):
            raise ViewError(f"feature {self.name!r} lists a category twice in its dictionary")
        if self.default is not None and not _is_number(self.default):
            raise ViewError(
                f"feature {self.name!r} has default {self.default!r}; write a plain number, or "
                "None for NaN"
            )
        if self.bounds is not None:
            self._check_bounds(self.bounds)

    def _check_bounds(self, bounds: tuple[float, float]) -> None:
        if len(bounds) != 2 or not all(_is_number(bound) for bound in bounds):
            raise ViewError(
                f"feature {self.name!r} has bounds {bounds}; both must be plain numbers. For no "
                f"bound on one side write -3.5e38 or 3.5e38, which no float32 exceeds"
            )
        if not bounds[0] <= bounds[1]:
            raise ViewError(f"feature {self.name!r} has bounds {bounds}; put the lowest first")

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
    source         where the rows come from. None: whoever ingests names it.
    expect         feature -> what its values must be like in each load.
    expect_rows    what the rows must be like in each load.
    is_new         False for a view that is rebuilt from its definition. Rules that are younger
                   than its version do not apply to it, so that a gateway goes on reading it.

    Source and expectations change no value, so they are not in the definition and the hash.
    Raises ViewError when these contradict each other.
    """

    name: str
    entities: tuple[str, ...]
    features: tuple[Feature, ...]
    ttl_ms: int
    transform: str
    source_schema: tuple[tuple[str, str], ...] = field(default=())
    source: Source | None = field(default=None, compare=False)
    expect: Mapping[str, Expect] = field(default_factory=dict, compare=False)
    expect_rows: ExpectRows = field(default_factory=ExpectRows, compare=False)
    is_new: InitVar[bool] = True

    def __post_init__(self, is_new: bool) -> None:
        if not NAME.fullmatch(self.name):
            raise ViewError(f"view name {self.name!r} does not match {NAME.pattern}")
        # ("customer") is a text, and its letters would be taken for entities.
        if isinstance(self.entities, str):
            raise ViewError(
                f"view {self.name!r} has entities={self.entities!r}; write a tuple, such as "
                f"({self.entities!r},)"
            )
        if isinstance(self.features, Feature):
            raise ViewError(
                f"view {self.name!r} has one Feature as its features; write a tuple, such as "
                "(Feature(...),)"
            )
        if not isinstance(self.transform, str):
            raise ViewError(
                f"view {self.name!r} has transform={self.transform!r}; write a SELECT as a text"
            )
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
        if not isinstance(self.ttl_ms, int) or isinstance(self.ttl_ms, bool) or self.ttl_ms <= 0:
            raise ViewError(
                f"view {self.name!r} has ttl_ms={self.ttl_ms!r}; it must be a whole number of "
                "milliseconds above 0"
            )
        if is_new:
            self._check_names()
            self._check_features()
            self._check_expectations()
            # Where DuckDB is not installed, no transform can run.
            if importlib.util.find_spec("duckdb"):
                self._check_transform()

    def _check_names(self) -> None:
        for entity in self.entities:
            if not NAME.fullmatch(entity):
                raise ViewError(
                    f"view {self.name!r}: entity name {entity!r} does not match {NAME.pattern}"
                )
        names = [feature.name for feature in self.features]
        taken = [name for name in (*RESERVED_NAMES, *self.entities) if name in names]
        taken += [name for name in RESERVED_NAMES if name in self.entities]
        if taken:
            raise ViewError(
                f"view {self.name!r} has features or entities named {taken}; these names are "
                "reserved for the entities and the instants of a row. Give the feature another name"
            )

    def _check_features(self) -> None:
        for feature in self.features:
            if feature.default is not None and abs(feature.default) > FLOAT32_MAX:
                raise ViewError(
                    f"view {self.name!r}: feature {feature.name!r} has default {feature.default}, "
                    "which float32 cannot hold"
                )
            spellings: dict[str, str] = {}
            for entry in feature.dictionary:
                other = spellings.setdefault(entry.strip().casefold(), entry)
                if other is not entry:
                    raise ViewError(
                        f"view {self.name!r}: feature {feature.name!r} has {other!r} and {entry!r} "
                        "in its dictionary, which differ by blanks or capitals only; bring them to "
                        "one spelling in the transform"
                    )

    def _check_expectations(self) -> None:
        dtypes = {feature.name: feature.dtype for feature in self.features}
        for name, expect in self.expect.items():
            if name not in dtypes:
                raise ViewError(
                    f"view {self.name!r} expects something of {name!r}, which is not among its "
                    f"features {list(dtypes)[:20]}"
                )
            is_number = dtypes[name] == "number"
            has_range = expect.low is not None or expect.high is not None
            if (is_number and expect.unknown_max is not None) or (not is_number and has_range):
                raise ViewError(
                    f"view {self.name!r}: feature {name!r} is a {dtypes[name]}; unknown_max is for "
                    "categories, low and high are for numbers"
                )

    def _check_transform(self) -> None:
        try:
            check_transform(self.transform)
        except ViewError as error:
            raise ViewError(f"view {self.name!r}: {error}") from error

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
                is_new=False,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ViewError(f"not a definition of a view: {error!r}") from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
