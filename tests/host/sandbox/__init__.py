"""The sandbox for untrusted code."""
