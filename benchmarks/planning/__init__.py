"""Measures plans of projects."""
