"""Models of other tools, on their way to versions."""
