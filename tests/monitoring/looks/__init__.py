"""Tests of monitoring/looks."""
