"""Watches versions in service: what they score, how good that is, and whom it hurts."""
