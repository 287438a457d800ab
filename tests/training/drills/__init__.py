"""Tests of training/drills."""
