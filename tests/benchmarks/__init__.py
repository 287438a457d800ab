"""That the generator counts right, and that a run says what was run."""
