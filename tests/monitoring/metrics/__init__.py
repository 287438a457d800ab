"""The /metrics page of control."""
