"""Errors of the features room. Each type of error is for one person to correct."""


class ViewError(ValueError):
    """The declaration of a view contradicts itself. Its author must correct it.

    It is raised when the view is declared, before any data is read.
    """


class ContractError(ValueError):
    """A model and the views in its contract do not fit together. The model's author must act."""


class EntityIdError(ValueError):
    """An entity id is empty, too long or has control characters. The caller must correct it."""


class SourceError(Exception):
    """A source table does not have the columns or types that its view declares."""


class ForeignStoreError(Exception):
    """The online store belongs to another system. The operator must give this one its own."""


class StoreChangedError(Exception):
    """The online store was emptied, replaced or written by another process while rows came.

    The writer must write the rows again.
    """


class OnlineStoreError(Exception):
    """The online store did not give the values. `reason` is one word, used as a metric label.

    OnlineReader.mget lists the reasons.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class ReplayRecordError(ValueError):
    """A record of a replay cannot be read, or is not of the version that it names."""
