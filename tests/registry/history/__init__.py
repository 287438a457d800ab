"""Tests of the history: chain and replay."""
