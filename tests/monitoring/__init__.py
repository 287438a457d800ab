"""The rollout: windows in, verdicts out, splits written back."""
