"""Tests of stats/accuracy."""
