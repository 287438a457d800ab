"""The errors of the rollout room. The type says what the caller can do."""


class RolloutRefusedError(Exception):
    """A rollout cannot start, or a command does not fit its stage. The caller must change that."""


class UnknownRolloutError(Exception):
    """There is no rollout of that model or id, or no policy of that name."""


class NotLeadingError(Exception):
    """Another controller leads, or none does at this moment. The caller can try again."""


class SenderRefusedError(Exception):
    """A stream of windows contradicts itself. It ends, and the streams of others go on."""


class SupersededError(Exception):
    """The deployment was changed from outside. The rollout ends and leaves it as it is."""


class CheckpointError(Exception):
    """A checkpoint cannot be used: it is damaged, or its policy is missing or was altered."""


class PolicyError(Exception):
    """A policy file, or the policy in a checkpoint, is not a valid policy."""
