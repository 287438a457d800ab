"""Hostile model files, each opened by the adoption's sandbox on this machine."""
