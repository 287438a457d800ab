"""A version's card for an approver: its metrics, and how its scores differ from production's."""

import json
from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType

from protos import registry_pb2
from turnout.views.golden_evidence import evidence_lines
from turnout.views.terminal import named_values

INTERVAL_KEYS = {"value", "low", "high"}
"""The keys of an estimate with its 95 % interval in a card."""

INITIAL = "initial"
"""Stands for a rollout policy in the approval of a model's first version, which has no rollout."""


def card_of(version: registry_pb2.Version) -> dict[str, Any]:
    """Return the card of *version* as JSON values; empty when it has none."""
    card: dict[str, Any] = json.loads(version.card_json or "{}")
    return card


def shift_digest(card: Mapping[str, Any]) -> str:
    """Return the digest of the expected shift in *card*; empty when there is none."""
    shift = card.get("expected_shift") or {}
    return str(shift.get("digest", ""))


def change_summary(card: Mapping[str, Any]) -> RenderableType:
    """Return a table of evidence, metrics and expected shift, as shown before an approval."""
    shown: dict[str, object] = {**evidence_lines(card), **joined_lines(card.get("joined"))}
    for group in ("metrics", "score_tolerance", "expected_shift", "drill"):
        for name, value in flatten_card(card.get(group) or {}):
            shown[f"{group}: {name}".replace("_", " ")] = value
    return named_values(shown)


def joined_lines(joined: object) -> dict[str, object]:
    """Return `joined: VIEW` -> the shares of the labels that the view had no values for.

    joined  what a card says of it. Its author may have written anything.
    """
    views = joined if isinstance(joined, Mapping) else {}
    lines: dict[str, object] = {}
    for view, shares in views.items():
        found = shares.items() if isinstance(shares, Mapping) else ()
        lines[f"joined: {view}"] = ", ".join(
            f"{name} {share:.1%}" for name, share in found if isinstance(share, int | float)
        )
    return lines


def flatten_card(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    """Return the values in nested mappings as (path, value), without lists, which are tables."""
    pairs: list[tuple[str, object]] = []
    for name, item in value.items():
        path = f"{prefix}{name}"
        if isinstance(item, Mapping) and item.keys() == INTERVAL_KEYS:
            pairs.append((path, format_estimate(item)))
        elif isinstance(item, Mapping):
            pairs.extend(flatten_card(item, f"{path}."))
        elif isinstance(item, float):
            pairs.append((path, f"{item:.4g}"))
        elif not isinstance(item, list):
            pairs.append((path, item))
    return pairs


def format_estimate(item: Mapping[str, float | None]) -> str:
    """Return a value and its 95 % interval as `0.858 [0.840, 0.876]`; `-` when it is undefined."""
    if item["value"] is None:
        return "-"
    if item["low"] is None or item["high"] is None:
        return f"{item['value']:.3f}"
    return f"{item['value']:.3f} [{item['low']:.3f}, {item['high']:.3f}]"
