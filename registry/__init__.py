"""The registry of versions, approvals and deployments, with a signed history of all changes."""
