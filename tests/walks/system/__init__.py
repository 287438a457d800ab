"""Walks through a running system, by the `turnout` command."""
