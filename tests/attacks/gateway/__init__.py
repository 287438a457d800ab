"""Attacks on the gateway and the online store."""
