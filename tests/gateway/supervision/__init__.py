"""Tests of gateway/supervision."""
