"""The sandbox for code that nobody trusts."""
