"""The registry's database and files: versions, approvals, deployments and the history."""
