"""Tests of the database of monitoring."""
