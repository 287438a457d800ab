"""Errors of training. Each type of error is for one person to correct."""


class RecipeError(ValueError):
    """A recipe contradicts itself, or is known to convert wrongly. Its author must correct it."""


class LabelsError(ValueError):
    """Labels, ids and instants differ in length, or there is one class only. The data is wrong."""


class JoinError(ValueError):
    """Too many labels found no fresh row in a view. Ids, instants or ingests must be corrected."""


class ConversionError(Exception):
    """The fitted model cannot be converted to a graph from `inputs` to `scores`."""


class GateFailedError(Exception):
    """A trained version did not pass its gate. `checks` has the texts of the failed checks."""

    def __init__(self, text: str, checks: tuple[str, ...]) -> None:
        super().__init__(text)
        self.checks = checks


class DrillError(ValueError):
    """The requested bad version cannot be made from the given version."""


class AdoptionError(ValueError):
    """A foreign model, or an answer about it, cannot be adopted. Its owner must correct it."""
