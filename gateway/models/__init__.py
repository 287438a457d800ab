"""Versions from the registry: fetched, proved, loaded, routed to and run."""
