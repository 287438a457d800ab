"""Tests of training/artifacts."""
