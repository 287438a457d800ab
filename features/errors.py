"""What can go wrong with features; whose fault is in the type."""


class ViewError(ValueError):
    """A declared view contradicts itself: its author's mistake, found before anything is read."""


class ContractError(ValueError):
    """A model and the views beside it do not fit together: the version's author's mistake."""


class EntityIdError(ValueError):
    """An entity id is empty, too long or holds control characters: the caller's mistake."""


class SourceError(Exception):
    """A source table does not have the columns its view declares."""


class OnlineStoreError(Exception):
    """The online store did not answer as promised. `reason` is one word for a metric label."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
