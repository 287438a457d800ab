"""What can go wrong with a rollout; whose fault is in the type."""


class RolloutRefusedError(Exception):
    """A rollout cannot start, or a verb does not fit where it stands: the caller's to change."""


class UnknownRolloutError(Exception):
    """No rollout of that model or id, or no policy of that name: the caller's mistake."""


class NotLeadingError(Exception):
    """Another controller acts now, or none may: ask again in a moment."""


class SupersededError(Exception):
    """Somebody changed the deployment by hand; the rollout ends and leaves it as it is."""


class CheckpointError(Exception):
    """A checkpoint is not one this controller wrote, or names a policy it does not have."""


class PolicyError(Exception):
    """A policy file does not say what a policy is."""
