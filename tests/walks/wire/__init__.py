"""Walks of broken and hostile connections."""
