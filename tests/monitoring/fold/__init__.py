"""Tests of the reader of journals."""
