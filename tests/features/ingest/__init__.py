"""Tests of features.ingest."""
