"""Walks of deadlines, cancellation, overload and restarts."""
