"""A virtual year of four models with planted events, replayed on the real tables of monitoring."""
