"""Tests of training/tasks."""
