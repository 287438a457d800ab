"""What exists and what is deployed: versions, approvals, deployments, history."""
