"""Cohorts of predictions with their outcomes: from cells, or from decisions joined with reports."""
