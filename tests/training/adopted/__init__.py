"""Tests of the way from a foreign model to the files of a version."""
