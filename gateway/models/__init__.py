"""Versions from the registry are fetched, verified, loaded, and run by the routes."""
