"""Runs code that nobody trusts: in a child without network, home, tokens or other processes."""
