"""The recipes of the demo's models, one file for each model."""
