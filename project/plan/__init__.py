"""Compares a project with what is applied, and says what the change touches."""
