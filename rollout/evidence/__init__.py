"""What closed windows say about a candidate: sets, sums and e-processes."""
