"""Monitoring tools of other people, as oracles of our figures."""
