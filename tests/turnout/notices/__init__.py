"""Tests of turnout.notices."""
