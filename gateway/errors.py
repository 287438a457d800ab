"""What can go wrong in the gateway that is no caller's business. None of these reaches the wire."""


class SettingsError(ValueError):
    """Two settings contradict each other; the gateway does not start."""


class ModelFaultError(Exception):
    """A version raised, hung or gave an unusable answer. `kind` is one word for a counter."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind
