"""Deliberately bad versions, with which rollbacks are rehearsed."""
