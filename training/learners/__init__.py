"""Fits the learners of recipes: one module for each library."""
