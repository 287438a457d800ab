"""Bytes to columns and columns to bytes: the server interface and its two implementations."""
