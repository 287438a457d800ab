"""What can go wrong in the gateway that is no caller's business. None of these reaches the wire."""


class SettingsError(ValueError):
    """Two settings contradict each other; the gateway does not start."""
