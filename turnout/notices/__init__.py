"""Notices of incidents: their formats, their signatures, and their delivery."""
