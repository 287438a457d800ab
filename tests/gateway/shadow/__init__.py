"""Tests of gateway/shadow."""
