"""Tests of gateway/models."""
