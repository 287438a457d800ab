"""Explains served predictions: finds the row, and asks a child process that holds the version."""
