"""Runs the Python files of a project in a child process and reads what they declare."""
