"""Tests of gateway/predict."""
