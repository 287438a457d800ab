"""Tests of the `turnout` command, its demo and its processes."""
