"""One file a model: its recipe in each of its settings, from one definition."""
