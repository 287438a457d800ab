"""One training run of a project: trains, registers, and keeps the run in the registry."""
