"""A version's card as an approver reads it: how good it is, and what it would change."""

import json
from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from protos import registry_pb2
from turnout.views.terminal import named_values

INTERVAL_KEYS = {"value", "low", "high"}
"""How a card holds an estimate."""

INITIAL = "initial"
"""Not a rollout policy: what the approval of a model's first version is of."""


def card_of(version: registry_pb2.Version) -> dict[str, Any]:
    """Return the version's card; empty where it has none."""
    card: dict[str, Any] = json.loads(version.card_json or "{}")
    return card


def shift_digest(card: Mapping[str, Any]) -> str:
    """Return the digest of the expected shift an approver accepts; empty where there is none."""
    shift = card.get("expected_shift") or {}
    return str(shift.get("digest", ""))


def change_summary(card: Mapping[str, Any]) -> RenderableType:
    """Return metrics and expected shift, the way they are shown before an approval."""
    shown: dict[str, object] = {}
    for group in ("metrics", "expected_shift", "drill"):
        for name, value in flatten_card(card.get(group) or {}):
            shown[f"{group}: {name}".replace("_", " ")] = value
    return named_values(shown) if shown else Text("Its card names no metrics.", style="dim")


def flatten_card(value: Mapping[str, Any], before: str = "") -> list[tuple[str, object]]:
    """Return the small values of nested *value* as (path, value); tables are left out."""
    found: list[tuple[str, object]] = []
    for name, item in value.items():
        path = f"{before}{name}"
        if isinstance(item, Mapping) and item.keys() == INTERVAL_KEYS:
            found.append((path, format_estimate(item)))
        elif isinstance(item, Mapping):
            found.extend(flatten_card(item, f"{path}."))
        elif isinstance(item, float):
            found.append((path, f"{item:.4g}"))
        elif not isinstance(item, list):
            found.append((path, item))
    return found


def format_estimate(item: Mapping[str, float | None]) -> str:
    """Return a value with its 95 % interval: 0.858 [0.840, 0.876]; - where it is not defined."""
    if item["value"] is None:
        return "-"
    if item["low"] is None or item["high"] is None:
        return f"{item['value']:.3f}"
    return f"{item['value']:.3f} [{item['low']:.3f}, {item['high']:.3f}]"
