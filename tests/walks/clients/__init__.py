"""Walks of clients and of the programs that the pages show."""
