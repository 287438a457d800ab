"""A recipe becomes a version, or is refused with the numbers."""
