"""Errors of training. Each type of error is for one person to correct."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any


class RecipeError(ValueError):
    """A recipe contradicts itself, or is known to convert wrongly. Its author must correct it."""


class LabelsError(ValueError):
    """Labels, ids and instants differ in length, or there is one class only. The data is wrong."""


class JoinError(ValueError):
    """Too many labels found no fresh row in a view. Ids, instants or ingests must be corrected."""


class ConversionError(Exception):
    """The fitted model cannot be converted to a graph from `inputs` to `scores`."""


class GateFailedError(Exception):
    """A trained version did not pass its gate. `checks` has the texts of the failed checks.

    report       all checks as JSON values, passed or not, as the card has them.
    only_better  whether the version lacks nothing but a gain over its champion.
    facts        sections of the card that the version would have had, as far as they are known.
    """

    facts: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self,
        text: str,
        checks: tuple[str, ...],
        report: Sequence[Mapping[str, Any]] = (),
        *,
        only_better: bool = False,
    ) -> None:
        super().__init__(text)
        self.checks = checks
        self.report = tuple(report)
        self.only_better = only_better


class CertifyError(ValueError):
    """A version cannot be compared with production on served rows."""


class DrillError(ValueError):
    """The requested bad version cannot be made from the given version."""


class AdoptionError(ValueError):
    """A foreign model, or an answer about it, cannot be adopted. Its owner must correct it."""
