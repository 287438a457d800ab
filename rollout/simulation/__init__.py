"""Simulated and recorded traffic played through the judge."""
