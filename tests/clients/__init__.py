"""The package for callers: its clients, its wheel, its README."""
