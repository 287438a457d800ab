"""Runs untrusted code: in a child without network, home, tokens or other processes."""
