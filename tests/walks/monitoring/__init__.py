"""Monitoring with a real gateway, control and readers."""
