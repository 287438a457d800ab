"""Tests of the services of monitoring."""
