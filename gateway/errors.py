"""Errors of the gateway that never reach a caller."""


class SettingsError(ValueError):
    """A setting is unknown, mistyped or contradicts another one; the gateway does not start."""
