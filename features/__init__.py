"""Declares features once, and serves them: as-of joins offline, and stored rows online."""
