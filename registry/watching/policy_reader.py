"""Reads a monitoring policy strictly: what is not known, or would be without effect, is refused."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from itertools import pairwise
from typing import Any

from host.text import CONTROL
from registry.watching.policy import (
    ACTS,
    ANY,
    COMPARISONS,
    DEFAULT_ACTS,
    KINDS,
    HarmThresholds,
    MonitoringPolicy,
    OutcomePolicy,
    Segmentation,
    seconds_of,
)

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
DURATION = re.compile(r"(0|[1-9]\d{0,4})[mhd]")
TOP_KEYS = (
    "owner",
    "decisions",
    "budget",
    "sensitive",
    "outcomes",
    "segments",
    "harm",
    "acts",
)
HORIZON_S_MAX = 3 * 366 * 86_400
DECISIONS_MAX = 10**9
PARTS_MAX = 32
CATEGORIES_MAX = 1_000
TEXT_MAX = 128
INTEGER_KEYS = ("group_people_min",)
SHARES = ("fairness_ratio", "silence_share", "auc_drop", "risk_floor")
"""Thresholds that lie between 0 and 1."""


class MonitoringPolicyError(ValueError):
    """A monitoring policy contradicts itself. The text begins with the key that is wrong."""


def read_monitoring_policy(table: object) -> MonitoringPolicy:
    """Return the policy in a table of TOML or JSON. Raises MonitoringPolicyError."""
    top = _table("monitoring", table, TOP_KEYS)
    owner = _text("owner", top.get("owner", ""))
    return MonitoringPolicy(
        owner=owner,
        decisions=_decisions(top.get("decisions", MonitoringPolicy().decisions)),
        budget=_number("budget", top.get("budget", 0.25), above=0.0, most=100.0),
        sensitive=_names("sensitive", top.get("sensitive", ())),
        outcomes={
            name: _outcome(f"outcomes.{name}", item)
            for name, item in _named("outcomes", top.get("outcomes", {})).items()
        },
        segments={
            name: _segmentation(f"segments.{name}", item)
            for name, item in _named("segments", top.get("segments", {})).items()
        },
        harm=_harm(top.get("harm", {})),
        acts=_acts(top.get("acts", {})),
    )


def check_policy_names(
    policy: MonitoringPolicy,
    *,
    outcomes: Iterable[str],
    features: Mapping[str, bool],
    views: Iterable[str],
) -> None:
    """Refuse names that the project does not have. Raises MonitoringPolicyError.

    outcomes  labels of the model's recipes; empty: the model has none here, so no name is checked.
    features  feature of the model's views -> whether it is a category; empty: none is known.
    views     all views of the project.
    """
    # A misspelt name would mean a figure that never comes.
    known_outcomes, known_views = sorted(outcomes), sorted(views)
    for name in policy.outcomes:
        if known_outcomes and name not in known_outcomes:
            raise MonitoringPolicyError(
                f"outcomes.{name} is no outcome of this model: its recipes learn "
                f"{', '.join(known_outcomes)}"
            )
    for name in policy.sensitive:
        if name not in known_views:
            raise MonitoringPolicyError(
                f"sensitive names the view {name!r}; the views are "
                f"{', '.join(known_views) or 'none'}"
            )
    # A category is cut by its names, and a number by ranges.
    for name, part in policy.segments.items():
        if not features:
            continue
        if part.feature not in features:
            raise MonitoringPolicyError(
                f"segments.{name}.feature = {part.feature!r}; the model's features are "
                f"{', '.join(sorted(features))}"
            )
        is_category = features[part.feature]
        if is_category is not bool(part.categories):
            key, found = ("categories", "a category") if is_category else ("ranges", "a number")
            raise MonitoringPolicyError(
                f"segments.{name}: feature {part.feature!r} is {found}, so it is cut by {key}"
            )


def _outcome(key: str, value: object) -> OutcomePolicy:
    table = _table(key, value, [item.name for item in fields(OutcomePolicy)])
    outcome = OutcomePolicy(
        positive_when=_condition(f"{key}.positive_when", table.get("positive_when")),
        horizon=_duration(f"{key}.horizon", table.get("horizon")),
        grace=_duration(f"{key}.grace", table.get("grace", "0d")),
        absent=table.get("absent", "unknown"),
        attribution=table.get("attribution", "last"),
        value=_number(f"{key}.value", table.get("value", 0.0)),
        cost=_number(f"{key}.cost", table.get("cost", 0.0), least=0.0),
    )
    if outcome.absent not in ("negative", "unknown"):
        raise MonitoringPolicyError(
            f"{key}.absent = {outcome.absent!r}; it is 'negative' (no report means that it did "
            "not happen) or 'unknown'"
        )
    if outcome.attribution not in ("last", "first"):
        raise MonitoringPolicyError(
            f"{key}.attribution = {outcome.attribution!r}; an outcome by entity belongs to the "
            "'last' prediction before its event, or to the 'first' within the horizon"
        )
    if not 0 < outcome.horizon_s <= HORIZON_S_MAX:
        raise MonitoringPolicyError(
            f"{key}.horizon = {outcome.horizon!r}; an outcome is decided after more than 0 and at "
            f"most 3 years ({HORIZON_S_MAX // 86_400}d), such as '30d'"
        )
    if outcome.final_s > 2 * HORIZON_S_MAX:
        raise MonitoringPolicyError(f"{key}.grace = {outcome.grace!r}; it is at most 3 years")
    return outcome


def _condition(key: str, value: object) -> str:
    """Return "any", or a comparison with one blank, such as ">= 1"."""
    text = " ".join(value.split()) if isinstance(value, str) else ""
    if text == ANY:
        return ANY
    sign = next((sign for sign in COMPARISONS if text.startswith(sign)), "")
    try:
        bound = float(text.removeprefix(sign))
    except ValueError:
        bound = math.nan
    if not sign or not math.isfinite(bound):
        raise MonitoringPolicyError(
            f"{key} = {value!r}; it compares the reported value, such as '>= 1' (with one of "
            f"{', '.join(COMPARISONS)}), or it is '{ANY}'"
        )
    return f"{sign} {bound:g}" if float(f"{bound:g}") == bound else f"{sign} {bound!r}"


def _segmentation(key: str, value: object) -> Segmentation:
    table = _table(key, value, ("feature", "ranges", "categories"))
    feature = _text(f"{key}.feature", table.get("feature"))
    if not feature or ("ranges" in table) is ("categories" in table):
        raise MonitoringPolicyError(
            f"{key} needs a feature, and either ranges (of a number) or categories"
        )
    if "ranges" in table:
        return Segmentation(feature=feature, ranges=_ranges(f"{key}.ranges", table["ranges"]))
    members = _categories(f"{key}.categories", table["categories"])
    return Segmentation(feature=feature, categories=members)


def _ranges(key: str, value: object) -> dict[str, tuple[float, float]]:
    ranges: dict[str, tuple[float, float]] = {}
    for name, ends in _parts(key, value).items():
        low, high = ends if isinstance(ends, list | tuple) and len(ends) == 2 else (None, None)
        pair = (_end(low), _end(high))
        if math.isnan(pair[0]) or math.isnan(pair[1]) or pair[0] >= pair[1]:
            raise MonitoringPolicyError(
                f"{key}.{name} = {ends!r}; a range is two numbers, [from, up to), the first one "
                "smaller; inf and -inf are open ends"
            )
        ranges[name] = pair
    # A row in two parts would be counted twice.
    ordered = sorted(ranges.items(), key=lambda item: item[1])
    for (name, (_, high)), (other, (low, _)) in pairwise(ordered):
        if low < high:
            raise MonitoringPolicyError(
                f"{key}: {name} and {other} overlap from {low:g} to {high:g}; a range ends before "
                "its second number, so [0, 12] and [12, 60] do not overlap"
            )
    return ranges


def _end(value: object) -> float:
    """Return an end of a range; NaN if it is no number."""
    if isinstance(value, str) and value in ("inf", "-inf"):
        return float(value)
    return float(value) if isinstance(value, int | float) and type(value) is not bool else math.nan


def _categories(key: str, value: object) -> dict[str, tuple[str, ...]]:
    seen: dict[str, str] = {}
    parts: dict[str, tuple[str, ...]] = {}
    for name, members in _parts(key, value).items():
        parts[name] = _names(f"{key}.{name}", members, any_text=True)
        if not parts[name]:
            raise MonitoringPolicyError(f"{key}.{name} = {members!r}; name at least one category")
        for member in parts[name]:
            if member in seen:
                raise MonitoringPolicyError(
                    f"{key}: {member!r} is in {seen[member]} and in {name}; parts do not overlap"
                )
            seen[member] = name
    return parts


def _parts(key: str, value: object) -> dict[str, Any]:
    parts = _named(key, value)
    if not 0 < len(parts) <= PARTS_MAX:
        raise MonitoringPolicyError(f"{key} has {len(parts)} parts; 1 to {PARTS_MAX} are possible")
    if "other" in parts:
        raise MonitoringPolicyError(
            f"{key}.other is the name of all rows in no part; choose another"
        )
    return parts


def _harm(value: object) -> HarmThresholds:
    known = {item.name: item for item in fields(HarmThresholds)}
    table = _table("harm", value, known)
    numbers: dict[str, Any] = {}
    for name, item in table.items():
        most = 1.0 if name in SHARES else 1e6
        numbers[name] = _number(f"harm.{name}", item, above=0.0, most=most)
        if name in INTEGER_KEYS:
            if numbers[name] != int(numbers[name]):
                raise MonitoringPolicyError(f"harm.{name} = {item!r}; it is a whole number")
            numbers[name] = int(numbers[name])
    if numbers.get("group_people_min", 10) < 10:
        raise MonitoringPolicyError(
            f"harm.group_people_min = {numbers['group_people_min']}; groups of fewer than 10 "
            "people are never shown"
        )
    return HarmThresholds(**numbers)


def _acts(value: object) -> dict[str, Any]:
    table = _table("acts", value, KINDS)
    for kind, act in table.items():
        if act not in ACTS:
            raise MonitoringPolicyError(f"acts.{kind} = {act!r}; it is one of {', '.join(ACTS)}")
    return {**DEFAULT_ACTS, **table}


def _decisions(value: object) -> int:
    if value == "all":
        return 0
    if type(value) is not int or not 0 < value <= DECISIONS_MAX:
        raise MonitoringPolicyError(
            f"decisions = {value!r}; it is 'all', or a number of keys a day, 1 to {DECISIONS_MAX}"
        )
    return value


def _duration(key: str, value: object) -> str:
    if not isinstance(value, str) or not DURATION.fullmatch(value):
        raise MonitoringPolicyError(
            f"{key} = {value!r}; write a time such as '30d', '12h' or '90m', of at most five "
            f"digits; the most is 3 years ({HORIZON_S_MAX // 86_400}d)"
        )
    return value if seconds_of(value) else "0d"


def _number(
    key: str,
    value: object,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
) -> float:
    is_number = isinstance(value, int | float) and type(value) is not bool
    number = float(value) if isinstance(value, int | float) and is_number else math.nan
    if not (math.isfinite(number) and least <= number <= most and above < number):
        bounds = [f"at least {least:g}"] if math.isfinite(least) else []
        bounds += [f"above {above:g}"] if math.isfinite(above) else []
        bounds += [f"at most {most:g}"] if math.isfinite(most) else []
        raise MonitoringPolicyError(f"{key} = {value!r}; it is a number {' and '.join(bounds)}")
    return number


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > TEXT_MAX or CONTROL.search(value):
        raise MonitoringPolicyError(
            f"{key} = {str(value)[:80]!r}; it is one line of at most {TEXT_MAX} characters"
        )
    return value


def _names(key: str, value: object, *, any_text: bool = False) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > CATEGORIES_MAX:
        raise MonitoringPolicyError(f"{key} = {str(value)[:80]!r}; it is a list of names")
    names = tuple(_text(key, item) for item in value)
    if any(not name or not (any_text or NAME.fullmatch(name)) for name in names):
        raise MonitoringPolicyError(
            f"{key} = {list(names)!r}; every name must match {NAME.pattern}"
        )
    if len(set(names)) != len(names):
        raise MonitoringPolicyError(f"{key} = {list(names)!r}; it names one thing twice")
    return names


def _named(key: str, value: object) -> dict[str, Any]:
    """Return a table whose keys are plain names."""
    if not isinstance(value, dict):
        raise MonitoringPolicyError(f"{key} = {str(value)[:80]!r}; it is a table of names")
    for name in value:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise MonitoringPolicyError(f"{key}.{name}: a name must match {NAME.pattern}")
    return value


def _table(key: str, value: object, known: Iterable[str]) -> dict[str, Any]:
    """Return a table of known keys: one that is not known would be without effect."""
    if not isinstance(value, dict):
        raise MonitoringPolicyError(f"{key} = {str(value)[:80]!r}; it is a table, [{key}]")
    names = list(known)
    unknown = sorted(map(str, value.keys() - set(names)))
    if unknown:
        at = unknown[0] if key == "monitoring" else f"{key}.{unknown[0]}"
        raise MonitoringPolicyError(f"{at} is not known; the keys of {key} are {', '.join(names)}")
    return value
