"""Additive counts of what versions scored: cells, and how journal records become cells."""
