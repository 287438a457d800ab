"""Tests of monitoring/watch."""
