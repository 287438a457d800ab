"""Reads a table that nobody has described, and guesses a view, labels and a recipe from it."""
