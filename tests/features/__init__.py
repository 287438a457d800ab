"""Features: the same numbers offline and online, or a loud reason."""
