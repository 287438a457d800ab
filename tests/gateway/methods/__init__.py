"""Tests of gateway/methods."""
