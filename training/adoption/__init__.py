"""Makes proven versions of models that other tools trained."""
