"""Tests of turnout.calls."""
