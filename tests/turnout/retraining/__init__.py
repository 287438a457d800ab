"""Tests of turnout.retraining."""
