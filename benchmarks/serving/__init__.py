"""The gateway beside a server written by hand, and how its cost grows."""
