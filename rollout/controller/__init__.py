"""The controller: it leads, receives windows, moves rollouts and recovers after a crash."""
