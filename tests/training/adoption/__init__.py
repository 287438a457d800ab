"""Tests of training/adoption."""
