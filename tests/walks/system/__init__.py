"""Walks through a whole running system."""
