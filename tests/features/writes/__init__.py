"""Tests of features/online."""
