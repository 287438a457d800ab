"""Training runs: what each was made from, what came of it, and its log."""
