"""The cost of single parts in microseconds."""
