"""Tests of stats/estimates."""
