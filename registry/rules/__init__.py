"""Pure rules of the registry: gates before a deployment, and the steps of a version's status."""
