"""Parts of processes that fail."""
