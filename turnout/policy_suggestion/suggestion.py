"""A monitoring policy that is proposed from a project, a card and a reference. No I/O.

Every value has the reason for it, because a person decides. What nothing tells is left to the
defaults, or stands as a number that is to be replaced.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from project.definitions import ProjectDefinitions
from project.errors import ProjectError
from registry.watching.policy import HarmThresholds
from registry.watching.policy_reader import NAME, read_monitoring_policy

CATEGORIES_MAX = 8
"""A feature with more categories would make segments that are too small to judge."""
SEGMENT_CATEGORIES_MIN = 2
SEGMENTS_MAX = 2
DEFAULT_HORIZON_DAYS = 30
GRACE_SHARE = 0.1
"""Grace as a share of the horizon: what decided outcomes take to arrive, before it is known."""
AUC_ERRORS = 2.0
"""Standard errors of the approved AUC that a drop must exceed, so that chance is no harm."""


@dataclass(frozen=True, slots=True)
class SuggestedValue:
    """One value of the proposal, and why it is proposed."""

    table: tuple[str, ...]
    key: str
    value: Any
    why: str = ""


def suggest_policy(
    definitions: ProjectDefinitions,
    model: str,
    card: Mapping[str, Any] | None,
    reference: Mapping[str, Any] | None,
) -> list[SuggestedValue]:
    """Return the values of a policy for a model, in the order of the file.

    card, reference  of the production version, or of the newest one; None: there is no version.

    Raises ProjectError for a model without a recipe and without settings in the project.
    """
    recipes = [item for item in definitions.recipes.values() if item["model"] == model]
    settings = definitions.models.get(model)
    if not recipes and settings is None:
        known = ", ".join(sorted(definitions.models)) or "none"
        raise ProjectError(f"project {definitions.name!r} has no model {model!r}; it has {known}")
    critical = settings is not None and settings["tier"] == "critical"
    values = [
        *_decisions(critical=critical),
        *_sensitive(recipes),
        *_outcomes(definitions, recipes),
        *_segments(definitions, recipes, reference or {}),
        *_harm(card or {}),
        *_acts(recipes, critical=critical),
    ]
    # What is proposed can be written into the file as it is.
    read_monitoring_policy(policy_table(values))
    return values


def policy_table(values: Iterable[SuggestedValue]) -> dict[str, Any]:
    """Return the values as the table [monitoring]."""
    table: dict[str, Any] = {}
    for item in values:
        inner = table
        for part in item.table:
            inner = inner.setdefault(part, {})
        inner[item.key] = item.value
    return table


def policy_toml(values: Iterable[SuggestedValue]) -> str:
    """Return the values as TOML, each with its reason."""
    lines: list[str] = []
    newest: tuple[str, ...] | None = None
    for item in values:
        if item.table != newest:
            newest = item.table
            lines += ["", f"[{'.'.join(('monitoring', *item.table))}]"]
        why = f"  # {item.why}" if item.why else ""
        lines.append(f"{item.key} = {_toml(item.value)}{why}")
    return "\n".join(lines).strip() + "\n"


def _toml(value: Any) -> str:  # noqa: ANN401  any value of a policy
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return json.dumps(value, ensure_ascii=False)


def _decisions(*, critical: bool) -> Iterator[SuggestedValue]:
    if critical:
        yield SuggestedValue((), "decisions", "all", "a critical model: every decision is kept")
    else:
        yield SuggestedValue((), "decisions", 200_000, "keys a day; 'all' keeps every decision")


def _sensitive(recipes: Iterable[Mapping[str, Any]]) -> Iterator[SuggestedValue]:
    """Yield the views that recipes audit by and do not learn from."""
    recipes = list(recipes)
    learned = {use["view"] for recipe in recipes for use in recipe["features"]}
    audited = {use["view"] for recipe in recipes for use in recipe["audit"]}
    if views := sorted(audited - learned):
        yield SuggestedValue((), "sensitive", views, "the recipe audits by them")


def _outcomes(
    definitions: ProjectDefinitions, recipes: Iterable[Mapping[str, Any]]
) -> Iterator[SuggestedValue]:
    """Yield an outcome for each label that the recipes learn."""
    seen = set()
    for recipe in recipes:
        name = recipe["label"]
        if name in seen or not NAME.fullmatch(name):
            continue
        seen.add(name)
        table = ("outcomes", name)
        labels = definitions.labels.get(recipe["labels"] or "", {})
        days = labels.get("horizon_days") or 0
        horizon = max(1, math.ceil(days or DEFAULT_HORIZON_DAYS))
        is_binary = recipe.get("task", "binary") == "binary"
        condition = ">= 1" if is_binary else "any"
        why = "the label is 0 or 1" if is_binary else "each report counts; say when one is good"
        yield SuggestedValue(table, "positive_when", condition, why)
        found = "the labels' horizon" if days else "NOT KNOWN: days until the outcome is decided"
        yield SuggestedValue(table, "horizon", f"{horizon}d", found)
        grace = max(1, math.ceil(horizon * GRACE_SHARE))
        yield SuggestedValue(table, "grace", f"{grace}d", "until a decided outcome has arrived")
        absent = "negative" if is_binary else "unknown"
        yield SuggestedValue(table, "absent", absent, "what no report within both means")
        yield SuggestedValue(table, "value", 0.0, "NOT KNOWN: money of one outcome, < 0: a loss")
        yield SuggestedValue(table, "cost", 0.0, "NOT KNOWN: money of one act on a score")


def _segments(
    definitions: ProjectDefinitions,
    recipes: Iterable[Mapping[str, Any]],
    reference: Mapping[str, Any],
) -> Iterator[SuggestedValue]:
    """Yield the first category with few values, and the first number that the reference cuts."""
    used = {(use["view"], name) for recipe in recipes for use in recipe["features"]
            for name in use["features"]}  # fmt: skip
    # The reference cuts a number, and the dictionary of a view names categories.
    bins = {item.get("name"): item for item in reference.get("features", ())}
    category = number = False
    for view in sorted({view for view, _ in used} & definitions.views.keys()):
        for feature in definitions.views[view]["canonical"]["features"]:
            name, dictionary = feature["name"], feature["dictionary"]
            if (view, name) not in used or not NAME.fullmatch(name):
                continue
            table = ("segments", name)
            if dictionary and not category:
                if not SEGMENT_CATEGORIES_MIN <= len(dictionary) <= CATEGORIES_MAX:
                    continue
                category = True
                yield SuggestedValue(table, "feature", name, "a category with few values")
                yield SuggestedValue(table, "categories", _category_parts(dictionary))
            # The first number whose reference can be cut.
            elif not dictionary and not number:
                cuts = _tertiles(bins.get(name) or bins.get(f"{view}.{name}") or {})
                if len(cuts) != SEGMENTS_MAX:
                    continue
                number = True
                low, high = cuts
                ranges = {
                    "low": [-math.inf, low],
                    "middle": [low, high],
                    "high": [high, math.inf],
                }
                yield SuggestedValue(table, "feature", name, "cut at thirds of the reference")
                yield SuggestedValue(table, "ranges", ranges)


def _category_parts(dictionary: Iterable[str]) -> dict[str, list[str]]:
    """Return one part for each category, under a name that a policy may have."""
    parts: dict[str, list[str]] = {}
    for number, category in enumerate(dictionary):
        plain = "".join(char if char.isalnum() and char.isascii() else "_" for char in category)
        name = plain.strip("_").lower()[:32]
        good = NAME.fullmatch(name) and name != "other" and name not in parts
        parts[name if good else f"part_{number}"] = [category]
    return parts


def _tertiles(bins: Mapping[str, Any]) -> list[float]:
    """Return the two edges that cut the reference's rows nearest to thirds; fewer if it cannot."""
    edges = [float(edge) for edge in bins.get("edges") or () if math.isfinite(float(edge))]
    counts = [int(count) for count in bins.get("counts") or ()]
    total = sum(counts)
    if not total or len(counts) < len(edges):
        return []
    # Rows up to each edge.
    shares = [sum(counts[: place + 1]) / total for place in range(len(edges))]
    cuts = {min(zip(shares, edges, strict=True), key=lambda item: abs(item[0] - third))[1]
            for third in (1 / 3, 2 / 3)}  # fmt: skip
    return sorted(cuts)


def _harm(card: Mapping[str, Any]) -> Iterator[SuggestedValue]:
    """Yield the drop of AUC that chance does not explain, by the card's interval."""
    auc = card.get("metrics", {}).get("auc")
    if not isinstance(auc, dict):
        return
    low, high = auc.get("low"), auc.get("high")
    if not isinstance(low, int | float) or not isinstance(high, int | float) or high <= low:
        return
    error = (high - low) / (2 * 1.96)
    drop = round(max(HarmThresholds().auc_drop, AUC_ERRORS * error), 3)
    if drop < 1.0:
        why = f"the card's AUC has a standard error of {error:.4f}"
        yield SuggestedValue(("harm",), "auc_drop", drop, why)


def _acts(recipes: Iterable[Mapping[str, Any]], *, critical: bool) -> Iterator[SuggestedValue]:
    yield SuggestedValue(("acts",), "quality", "hold", "rollouts wait while data is broken")
    if critical:
        yield SuggestedValue(("acts",), "calibration", "rollback", "a critical model goes back")
    if list(recipes):
        yield SuggestedValue(("acts",), "auc", "retrain", "its recipe can train it anew")
