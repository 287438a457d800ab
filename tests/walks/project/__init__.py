"""Walks through a project of an operator's own."""
