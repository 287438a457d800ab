"""The errors of monitoring."""


class MonitoringError(Exception):
    """The base of what monitoring raises on purpose."""


class BadRecordError(MonitoringError):
    """A journal's record is intact, and its columns contradict each other."""


class BadCellError(MonitoringError):
    """Counts that cannot be added: another length, a negative index, or another kind of number."""


class SequenceError(MonitoringError):
    """A reader pushed a batch that does not follow the stored one."""


class MonitoringStoreError(MonitoringError):
    """The database of monitoring refuses or cannot be opened."""


class BadDecisionsError(MonitoringError):
    """A block of decisions does not have the rows and columns that it states."""


class BadImportError(MonitoringError):
    """Scores or outcomes of a model elsewhere cannot be what they state."""


class BadPageError(MonitoringError):
    """The token of a page is none that this server gave, or belongs to another list."""


class UnreadableDecisionsError(MonitoringError):
    """A file of decisions cannot be read or written."""
