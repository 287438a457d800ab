"""Tests of training/adoption/convert."""
