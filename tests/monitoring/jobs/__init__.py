"""Tests of monitoring/jobs."""
