"""Tests of learners: declarations, fits of each library, and what is refused."""
