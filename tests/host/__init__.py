"""Tests of host/, on the real disk and with real processes."""
