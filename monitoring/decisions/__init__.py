"""Sampled rows as Parquet, one folder for each model and day, and how one is found by its id."""
