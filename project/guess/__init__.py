"""Reads a table without a description, and guesses a view, labels and a recipe from it."""
