"""Commands, without a system."""
