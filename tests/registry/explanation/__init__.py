"""Explanations of versions are exact, additive to the score, and refused where they cannot be."""
