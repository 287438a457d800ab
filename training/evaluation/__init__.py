"""How good the scores are, for whom, and whether they are good enough to register."""
