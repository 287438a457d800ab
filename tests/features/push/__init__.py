"""Tests of features.push."""
