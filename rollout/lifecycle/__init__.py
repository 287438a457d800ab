"""The state of one rollout, and how that state is written to a deployment."""
