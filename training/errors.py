"""What can go wrong while a version is made; whose fault is in the type."""


class RecipeError(ValueError):
    """A recipe contradicts itself, or asks for what is known to convert wrongly: its author's."""


class LabelsError(ValueError):
    """Labels, ids and times do not fit together, or one class is absent: the data's owner's."""


class ConversionError(Exception):
    """The fitted model did not become the one graph a version holds."""


class GateFailedError(Exception):
    """A version was made and is not good enough. `checks` are the failed ones, in words."""

    def __init__(self, text: str, checks: tuple[str, ...]) -> None:
        super().__init__(text)
        self.checks = checks


class DrillError(ValueError):
    """A bad version as asked for cannot be made from this good one."""
