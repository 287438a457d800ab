"""Declares labels: where a recipe's outcomes come from. Nothing is read here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from features.canonical import canonical_json, sha256_hex
from features.errors import ViewError
from features.source import Source
from features.transforms import check_transform
from features.views import NAME
from training.errors import LabelsError


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The outcomes that a model learns from, one row for each entity and instant.

    entities   names of the columns with the ids, in any order.
    source     where the rows come from. Its time is the instant of a label: a model is given the
               features as they were known then.
    value      the column with the outcome. A row without one is left out: its outcome is not known.
    positive   the values of the column that are positive; every other value is negative. Empty: the
               column is BOOLEAN, or has the numbers 0 and 1 only.
    transform  DuckDB SQL over a table named `source`. It returns the entity columns,
               `event_time_ms`, the column *value* and the columns *inputs*.
    inputs     columns with what a caller would have sent at the instant, one for each request
               input of the recipes that learn from the labels, under the input's name.
    horizon_days  days from the instant until the outcome is final, as in "left within 30 days"; 0:
               every label is final. A label whose days are not over yet at the newest instant at
               which a row of the labels became known is left out. The source names that instant
               with created=, or the transform returns `created_ms`.

    Raises LabelsError when these contradict each other.
    """

    name: str
    entities: tuple[str, ...]
    source: Source
    value: str
    positive: tuple[str | int | float | bool, ...] = ()
    transform: str = "SELECT * FROM source"
    inputs: tuple[str, ...] = ()
    horizon_days: float = 0.0

    def __post_init__(self) -> None:
        # Names and columns.
        if not NAME.fullmatch(self.name):
            raise LabelsError(f"the name of labels {self.name!r} does not match {NAME.pattern}")
        if isinstance(self.entities, str) or not self.entities:
            raise LabelsError(
                f"labels {self.name!r} have entities {self.entities!r}; give a tuple with the name "
                "of at least one column"
            )
        if isinstance(self.inputs, str):
            raise LabelsError(
                f"labels {self.name!r} have inputs={self.inputs!r}; give a tuple: "
                f"({self.inputs!r},)"
            )
        columns = (*self.entities, self.value, *self.inputs)
        if len(set(columns)) != len(columns) or not all(columns):
            raise LabelsError(
                f"labels {self.name!r} name the columns {list(columns)}; entities, value and "
                "inputs must be different columns"
            )
        # Values, horizon and SQL.
        if isinstance(self.positive, str):
            raise LabelsError(
                f"labels {self.name!r} have positive={self.positive!r}; give a tuple: "
                f"({self.positive!r},)"
            )
        if not 0.0 <= self.horizon_days < math.inf:
            raise LabelsError(
                f"labels {self.name!r} have horizon_days={self.horizon_days}; it is the days until "
                "an outcome is final, from 0 on"
            )
        try:
            check_transform(self.transform)
        except ViewError as error:
            raise LabelsError(f"labels {self.name!r}: {error}") from error

    def definition(self) -> dict[str, Any]:
        """Return the labels as JSON values; inputs and horizon are there only where they are used.

        So the digests of labels that were declared before these fields stay.
        """
        return {
            "name": self.name,
            "entities": list(self.entities),
            "source": self.source.definition(),
            "value": self.value,
            "positive": list(self.positive),
            "transform": self.transform,
            **({"inputs": list(self.inputs)} if self.inputs else {}),
            **({"horizon_days": self.horizon_days} if self.horizon_days else {}),
        }

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the definition, for the cards of versions that learned from them."""
        return sha256_hex(canonical_json(self.definition()))

    @staticmethod
    def from_definition(definition: Mapping[str, Any]) -> "Labels":
        """Rebuild labels from the return value of `definition`, or from its JSON.

        Raises LabelsError when a field is missing or contradicts another one.
        """
        try:
            return Labels(
                name=definition["name"],
                entities=tuple(definition["entities"]),
                source=Source.from_definition(definition["source"]),
                value=definition["value"],
                positive=tuple(definition["positive"]),
                transform=definition["transform"],
                inputs=tuple(definition.get("inputs", ())),
                horizon_days=definition.get("horizon_days", 0.0),
            )
        except (KeyError, TypeError, ViewError) as error:
            raise LabelsError(f"not a definition of labels: {error!r}") from error
