"""Explains the scores of a version from its own files, so that the answer stays the same."""
