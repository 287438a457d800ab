"""Monitoring as control hosts it, and the commands about it."""
