"""Tests of training.adoption.graph."""
