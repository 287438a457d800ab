"""The commands about monitoring."""
