"""Tests of cohorts with their outcomes."""
