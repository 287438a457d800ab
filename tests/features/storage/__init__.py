"""Tests of features.storage."""
