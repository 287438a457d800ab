"""Schedules of projects: when a model is due, when it may not be; the client's calls about runs."""
