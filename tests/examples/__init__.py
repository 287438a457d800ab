"""Tests of examples/telco, by its own commands and files."""
