"""Walks in which the online store fails."""
