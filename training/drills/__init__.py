"""Makes bad versions on purpose, to rehearse rollbacks."""
