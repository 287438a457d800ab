"""Tests of stats/fairness."""
