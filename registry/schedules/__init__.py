"""Schedules of projects: when a model is due to be trained, and when it may not be."""
