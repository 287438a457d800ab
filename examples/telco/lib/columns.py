"""Columns that several views and their data share."""

from turnout.define import Feature

SUBSCRIBER = "subscriber"
OFFER = "offer"
DAY_MS = 86_400_000

DEVICES = ("basic", "smart", "5g")
OFFER_KINDS = ("data", "roaming", "device", "content")

TIMES = (("event_time_ms", "BIGINT"), ("created_ms", "BIGINT"))
"""When a row became true, and when it became known: Unix milliseconds."""


def category(name: str, *dictionary: str) -> Feature:
    """Return a category whose missing value is K + 1, so that a tree can tell it from unknown."""
    return Feature(
        name=name, dtype="category", dictionary=dictionary, default=float(len(dictionary) + 1)
    )
