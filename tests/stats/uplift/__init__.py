"""Tests of stats/uplift."""
