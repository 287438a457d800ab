"""A version's card for an approver: its metrics, and how its scores differ from production's."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeGuard

from rich.console import RenderableType

from protos import registry_pb2
from turnout.views.golden_evidence import evidence_lines
from turnout.views.proposals import champion_text
from turnout.views.terminal import named_values

INTERVAL_KEYS = {"value", "low", "high"}
"""The keys of an estimate with its 95 % interval in a card."""

UNIT_METRICS = ("mae", "rmse", "bias")
"""Metrics of a regression in the unit of its values."""
DECIDED_TASKS = ("binary", "anomaly")
"""Tasks whose callers act from a threshold on."""
UNDEFINED = "-"
LARGE = 1_000.0
"""From here on a number needs no places."""

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
    """Return a table of what an approver accepts, as shown before an approval.

    It has what proves the version, the data, the joined features, the metrics, the gate, the
    fairness report and the expected shift.
    """
    shown: dict[str, object] = dict(evidence_lines(card))
    for name, value in flatten_card(_mapping(card.get("data"))):
        shown[f"data: {_in_words(name)}"] = value
    shown |= joined_lines(card.get("joined"))
    for name, value in metric_lines(card).items():
        shown[f"metrics: {_in_words(name)}"] = value
    if card.get("task", "binary") in DECIDED_TASKS and "threshold" in card:
        shown["threshold"] = card["threshold"]
    for name, value in flatten_card(_mapping(card.get("score_tolerance"))):
        shown[f"score tolerance: {name}"] = value
    if isinstance(card.get("champion"), Mapping):
        shown["champion on the newest labels"] = champion_text(card["champion"])
    shown |= gate_lines(card.get("gate")) | fairness_lines(card.get("fairness"))
    for group in ("expected_shift", "drill"):
        for name, value in flatten_card(_mapping(card.get(group))):
            if not name.startswith("sections."):
                shown[f"{group}: {name}".replace("_", " ")] = value
    # The digest of the shift covers these sections, which stand above.
    sections = _mapping(_mapping(card.get("expected_shift")).get("sections"))
    if sections:
        shown["expected shift: digest covers"] = ", ".join(map(str, sections))
    return named_values(shown)


def _in_words(name: str) -> str:
    """Return the name of a fact in words. What stands behind a dot is a class, which is kept."""
    fact, dot, part = name.partition(".")
    return f"{fact.replace('_', ' ')}{dot}{part}"


def metric_lines(card: Mapping[str, Any], *, places: int = 3) -> dict[str, object]:
    """Return metric -> its value, its interval and its unit.

    card  of a version, or the result of a run, which has the same facts.
    """
    unit = _mapping(_mapping(card.get("data")).get("values")).get("unit", "")
    lines: dict[str, object] = {}
    for name, item in _mapping(card.get("metrics")).items():
        if isinstance(item, Mapping) and item.keys() == INTERVAL_KEYS:
            shown = format_estimate(item, places=places)
            in_unit = unit and name in UNIT_METRICS and shown != UNDEFINED
            lines[name] = f"{shown} {unit}" if in_unit else shown
        else:
            lines |= flatten_card({name: item})
    return lines


def gate_lines(gate: object) -> dict[str, object]:
    """Return `gate: CHECK` -> whether the version passed it, with its numbers."""
    checks = [check for check in gate if isinstance(check, Mapping)] if _is_list(gate) else []
    return {
        f"gate: {check.get('name', '-')}".replace("_", " "): (
            f"{'passed' if check.get('passed') is True else 'FAILED'}: {check.get('text', '-')}"
        )
        for check in checks
    }


def fairness_lines(fairness: object) -> dict[str, object]:
    """Return `fairness: FEATURE` -> its verdict, and a line for each group outside the band.

    Groups within the band are counted only. A group without a value is `unknown`.
    """
    lines: dict[str, object] = {}
    for feature, report in _mapping(fairness).items():
        found = _mapping(report)
        listed = found.get("groups")
        groups = [_mapping(group) for group in listed] if _is_list(listed) else []
        counts = Counter(str(group.get("verdict")) for group in groups)
        counted = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
        lines[f"fairness: {feature}"] = f"{found.get('verdict', '-')}" + (
            f" (groups: {counted})" if groups else ""
        )
        for group in groups:
            if group.get("verdict") == "within band":
                continue
            value = group.get("value")
            rows = _mapping(_mapping(group.get("counts")).get("member")).get("rows", "-")
            text = f"{group.get('verdict', '-')}, {rows} rows"
            for name in ("selection_rate_ratio", "tpr_gap", "mean_error_gap"):
                estimate = group.get(name)
                if isinstance(estimate, Mapping) and estimate.keys() == INTERVAL_KEYS:
                    text += f", {name.replace('_', ' ')} {format_estimate(estimate)}"
            lines[f"fairness: {feature} = {'unknown' if value is None else value}"] = text
    return lines


def joined_lines(joined: object) -> dict[str, object]:
    """Return `joined: VIEW` -> the shares of the labels that the view had no values for.

    joined  what a card says of it. Its author may have written anything.
    """
    lines: dict[str, object] = {}
    for view, shares in _mapping(joined).items():
        lines[f"joined: {view}"] = ", ".join(
            f"{name} {share:.1%}"
            for name, share in _mapping(shares).items()
            if isinstance(share, int | float)
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


def format_estimate(item: Mapping[str, float | None], *, places: int = 3) -> str:
    """Return a value and its 95 % interval as `0.858 [0.840, 0.876]`; `-` when it is undefined."""
    value, low, high = (
        number if isinstance(number, int | float) else None
        for number in (item["value"], item["low"], item["high"])
    )
    if value is None:
        return UNDEFINED
    form = f".{places}f" if abs(value) < LARGE else ",.0f"
    shown = f"{value:{form}}"
    return shown if low is None or high is None else f"{shown} [{low:{form}}, {high:{form}}]"


def _mapping(value: object) -> Mapping[str, Any]:
    """Return *value* if it is a mapping; a card's author may have written anything."""
    return value if isinstance(value, Mapping) else {}


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)
