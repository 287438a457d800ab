"""Tests of the replay of served features."""
