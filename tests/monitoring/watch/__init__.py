"""Tests of the looks at versions in service."""
