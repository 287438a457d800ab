"""Walks through monitoring with real processes."""
