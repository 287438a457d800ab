"""Walks of versions that crash, hang or are damaged."""
