"""Walks of incidents, notices and the report."""
