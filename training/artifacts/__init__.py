"""Writes the files of a version beside its model: card, golden rows and reference."""
