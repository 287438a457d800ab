"""Append-only CRC segments on disk: the gateway writes, features and monitoring read."""
