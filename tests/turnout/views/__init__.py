"""Tests of turnout/views."""
