"""The weekly review: what is red, what waits for whom, and what was decided."""
