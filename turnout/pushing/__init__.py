"""Pushed rows: the process that takes them, and the command that pushes those of a file."""
