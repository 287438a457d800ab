"""The five measures, each with the history entries that it is made from. No I/O.

1. Time from idea to production, by stage, of the versions that became production in the period.
2. Models in monitored production, of all that are known, also of those that run elsewhere.
3. Incidents, and how fast people and the controller answered.
4. Time of rollbacks.
5. Uplift of each model, as monitoring has measured it.

What was not measured is said to be so: it is no zero.
"""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from turnout.report.facts import Fact, ReportInputs

STAGES = ("idea", "training", "waiting for approval", "waiting for rollout", "rollout")
"""The stages until production. An idea begins with the first revision of a project that has the
model, and counts for the model's first version only. Later versions begin with their training."""
SEVERITIES = {1: "review", 2: "warning", 3: "page"}
RESOLUTIONS = {0: "open", 1: "real", 2: "false alarm", 3: "expected"}
P90 = 0.9
SCORES = "scores"
"""Kind of the findings about imports of a model elsewhere."""
SCORES_MS = 7 * 86_400_000
"""A model elsewhere is watched if its newest score is not older."""


@dataclass(frozen=True, slots=True)
class MeasuredTimes:
    """Times in seconds of one kind, and the entries that they are the distances of."""

    name: str
    seconds: tuple[float, ...]
    entries: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return count, median and 90 % quantile; null where nothing was measured."""
        ordered = sorted(self.seconds)
        place = max(0, -(-int(len(ordered) * P90 * 10) // 10) - 1)
        return {
            "name": self.name,
            "count": len(ordered),
            "median_s": statistics.median(ordered) if ordered else None,
            "p90_s": ordered[min(place, len(ordered) - 1)] if ordered else None,
            "max_s": ordered[-1] if ordered else None,
            "entries": list(self.entries),
        }


def report_of(inputs: ReportInputs) -> dict[str, Any]:
    """Return the five measures as JSON values."""
    return {
        "since_unix_ms": inputs.since_ms,
        "until_unix_ms": inputs.now_ms,
        "entries": len(inputs.facts),
        "time_to_production": time_to_production(inputs),
        "monitored_models": monitored_models(inputs),
        "incidents": incident_response(inputs),
        "rollbacks": rollback_times(inputs),
        "uplift": uplift_of_models(inputs),
    }


def time_to_production(inputs: ReportInputs) -> dict[str, Any]:
    """Return each version that became production in the period, and the times of its stages."""
    # The versions of the period, each from the entries of its model.
    productions = _first_productions(inputs)
    facts_by_model: dict[str, list[Fact]] = {}
    for fact in inputs.facts:
        facts_by_model.setdefault(fact.model, []).append(fact)
    firsts: dict[str, int] = {}
    for fact in productions:
        firsts.setdefault(fact.model, fact.seq)
    versions = [
        journey
        for fact in productions
        if fact.at_ms >= inputs.since_ms
        and (
            journey := _journey(
                facts_by_model[fact.model],
                fact,
                inputs.ideas.get(fact.model) if firsts[fact.model] == fact.seq else None,
            )
        )
    ]
    # Each stage over all versions, and the whole.
    stages = [
        MeasuredTimes(
            stage,
            tuple(item["stages"][stage] for item in versions if stage in item["stages"]),
            _entries(item["entries"] for item in versions if stage in item["stages"]),
        ).to_json()
        for stage in STAGES
    ]
    whole = MeasuredTimes(
        "idea to production",
        tuple(item["total_s"] for item in versions),
        _entries(item["entries"] for item in versions),
    )
    return {"total": whole.to_json(), "stages": stages, "versions": versions}


def _first_productions(inputs: ReportInputs) -> list[Fact]:
    """Return the entry by which each version first became production, oldest first."""
    found: dict[tuple[str, str], Fact] = {}
    for fact in inputs.facts:
        if fact.action.startswith("deploy") and (label := fact.after.get("production")):
            found.setdefault((fact.model, label), fact)
    return list(found.values())


def _journey(facts: Sequence[Fact], production: Fact, idea: Fact | None) -> dict[str, Any] | None:
    """Return the stages of one version; None if its registration is in no entry.

    facts  of the version's model.
    idea   the entry with which the model began, for its first version.
    """
    model, label = production.model, str(production.after["production"])
    own = [fact for fact in facts if fact.seq <= production.seq]
    registered = next((f for f in own if f.action == "register" and _is_version(f, label)), None)
    if registered is None:
        return None
    # A run that ended with this version began before the registration.
    run_id = _run_of(facts, registered.after.get("digest"))
    run = next((f for f in own if f.action == "begin run" and f.after.get("id") == run_id), None)
    approved = next(
        (f for f in own if f.action == "approve" and str(f.after.get("version")) == label), None
    )
    started = next((f for f in own if f.action.startswith("deploy") and _runs(f, label)), None)
    # Each stage is the time between two entries, where both are there.
    first_step = run or registered
    if idea is not None and idea.at_ms > first_step.at_ms:
        idea = None
    pairs = ((idea, first_step), (run, registered), (registered, approved), (approved, started))
    stages = {
        stage: max(0.0, (after.at_ms - before.at_ms) / 1_000)
        for stage, (before, after) in zip(STAGES, (*pairs, (started, production)), strict=True)
        if before is not None and after is not None
    }
    steps = (idea, run, registered, approved, started, production)
    first = idea or first_step
    return {
        "model": model,
        "version": label,
        "stages": stages,
        "total_s": (production.at_ms - first.at_ms) / 1_000,
        "entries": sorted({fact.seq for fact in steps if fact is not None}),
    }


def _is_version(fact: Fact, label: str) -> bool:
    return fact.name == f"version/{label}"


def _run_of(facts: Sequence[Fact], digest: object) -> str:
    """Return the id of the run that ended with a version; empty if none did."""
    for fact in facts:
        if fact.action == "end run" and digest and fact.after.get("version_digest") == digest:
            return str(fact.after.get("id", ""))
    return ""


def _runs(fact: Fact, label: str) -> bool:
    """Whether a deployment gives a version a place."""
    after = fact.after
    places = [after.get("production"), after.get("canary"), *after.get("preload", ())]
    return label in places or any(shadow[0] == label for shadow in after.get("shadows", ()))


def _has_new_scores(fact: Fact, inputs: ReportInputs) -> bool:
    """Whether a finding is of an import with scores of the last days (turnout models)."""
    if fact.after.get("kind") != SCORES:
        return False
    try:
        newest_ms = int(json.loads(str(fact.after.get("text")))["newest_unix_ms"])
    except (ValueError, KeyError, TypeError):
        return False
    return inputs.now_ms - SCORES_MS <= newest_ms


def monitored_models(inputs: ReportInputs) -> dict[str, Any]:
    """Return every model that is known, where it runs, and whether it is watched."""
    # Known by a version, by a project, or because a person wrote it down.
    entries: dict[str, set[int]] = {}
    for fact in inputs.of("register", "add outside model"):
        entries.setdefault(fact.model, set()).add(fact.seq)
    for model, seq in inputs.policy_entries.items():
        entries.setdefault(model, set()).add(seq)
    # In production: by its newest deployment, or elsewhere.
    production: dict[str, Fact] = {}
    for fact in inputs.facts:
        if fact.action.startswith("deploy"):
            production[fact.model] = fact
    outside = {fact.model: fact for fact in inputs.of("add outside model")}
    scored = {fact.model: fact for fact in inputs.of("finding") if _has_new_scores(fact, inputs)}
    models = []
    for model in sorted(entries):
        deployed = production.get(model)
        label = "" if deployed is None else str(deployed.after.get("production", ""))
        place = str(outside[model].after.get("place", "")) if model in outside else ""
        watched = bool(inputs.policies.get(model)) and bool(label)
        seqs = entries[model] | ({deployed.seq} if deployed is not None and label else set())
        # A model elsewhere is watched while its scores come.
        if place and model in scored:
            watched = True
            seqs.add(scored[model].seq)
        models.append(
            {
                "model": model,
                "production": label,
                "elsewhere": place,
                "monitored": watched,
                "entries": sorted(seqs),
            }
        )
    return {
        "known": len(models),
        "in_production": sum(bool(item["production"] or item["elsewhere"]) for item in models),
        "in_monitored_production": sum(item["monitored"] for item in models),
        "models": models,
    }


def incident_response(inputs: ReportInputs) -> dict[str, Any]:
    """Return the incidents of the period by kind and severity, and the times of the answers."""
    # The state of each incident, from its opening and its changes.
    rows: dict[str, dict[str, Any]] = {}
    seqs: dict[str, list[int]] = {}
    for fact in inputs.of("open incident", "change incident"):
        incident_id = str(fact.after.get("id", ""))
        rows[incident_id] = {**rows.get(incident_id, {}), **fact.after}
        seqs.setdefault(incident_id, []).append(fact.seq)
    counted = {
        key: row for key, row in rows.items() if row.get("opened_unix_ms", 0) >= inputs.since_ms
    }
    # How long until each answer.
    times = []
    for name, column in (
        ("to acknowledge", "acknowledged_unix_ms"),
        ("to mitigate", "mitigated_unix_ms"),
        ("to close", "closed_unix_ms"),
    ):
        answered = {key: row for key, row in counted.items() if row.get(column)}
        seconds = tuple((row[column] - row["opened_unix_ms"]) / 1_000 for row in answered.values())
        entries = _entries(seqs[key] for key in answered)
        times.append(MeasuredTimes(name, seconds, entries).to_json())
    # How long it went on before it was noticed. An incident that a person opens without a time of
    # its beginning begins when it is opened, and says nothing about that.
    dated = {
        key: row for key, row in counted.items() if row["since_unix_ms"] < row["opened_unix_ms"]
    }
    detection = tuple(
        (row["opened_unix_ms"] - row["since_unix_ms"]) / 1_000 for row in dated.values()
    )
    noticed = MeasuredTimes("to notice", detection, _entries(seqs[key] for key in dated))
    return {
        "count": len(counted),
        "open": sum(not row.get("closed_unix_ms") for row in counted.values()),
        "by_kind": _counts(row.get("kind", "") for row in counted.values()),
        "by_severity": _counts(SEVERITIES.get(row["severity"], "?") for row in counted.values()),
        "by_resolution": _counts(
            RESOLUTIONS.get(row["resolution"], "?") for row in counted.values()
        ),
        "times": [noticed.to_json(), *times],
        "incidents": [
            {
                "incident": key,
                "model": row.get("model", ""),
                "kind": row.get("kind", ""),
                "title": row.get("title", ""),
                "opened_unix_ms": row["opened_unix_ms"],
                "closed_unix_ms": row.get("closed_unix_ms", 0),
                "severity": SEVERITIES.get(row["severity"], "?"),
                "entries": seqs[key],
            }
            for key, row in counted.items()
        ],
        "entries": list(_entries(seqs[key] for key in counted)),
    }


def rollback_times(inputs: ReportInputs) -> dict[str, Any]:
    """Return the rollbacks of the period: from the verdict or the finding until traffic moved."""
    automatic: dict[str, tuple[Fact, dict[str, Any]]] = {}
    held: list[tuple[Fact, dict[str, Any]]] = []
    for fact in inputs.of("finding"):
        value = _acted(fact)
        if value is None or fact.at_ms < inputs.since_ms:
            continue
        if value["act"] == "hold":
            held.append((fact, value))
        elif value["act"] == "rollback":
            # A rollout that a finding has ended is written down twice; the finding's time counts.
            key = value.get("rollout") or f"entry {fact.seq}"
            if key not in automatic or value.get("finding"):
                automatic[key] = (fact, value)
    moved = [(fact, value) for fact, value in automatic.values() if value.get("acted_unix_ms")]
    return {
        "automatic": _span("verdict or finding to traffic moved", moved).to_json(),
        "held": _span("finding to rollout held", held).to_json(),
        "by_hand": [
            {"model": fact.model, "entries": [fact.seq]}
            for fact in inputs.of("deploy rollback")
            if fact.at_ms >= inputs.since_ms and not fact.after.get("rollout_id")
        ],
    }


def _span(name: str, acts: Sequence[tuple[Fact, dict[str, Any]]]) -> MeasuredTimes:
    seconds = tuple(
        max(0, value["acted_unix_ms"] - (value.get("verdict_unix_ms") or value["finding_unix_ms"]))
        / 1_000
        for _, value in acts
    )
    return MeasuredTimes(name, seconds, tuple(fact.seq for fact, _ in acts))


def _acted(fact: Fact) -> dict[str, Any] | None:
    """Return what a finding of kind "acted" says, or None."""
    if fact.after.get("kind") != "acted":
        return None
    try:
        value = json.loads(fact.after.get("text", ""))
    except ValueError:
        return None
    return value if isinstance(value, dict) and "act" in value else None


def uplift_of_models(inputs: ReportInputs) -> list[dict[str, Any]]:
    """Return the newest uplift of each model in production, or that none was measured.

    It is the figure "uplift" of an incident, or of a finding of kind "figures" whose text is JSON.
    """
    newest: dict[str, tuple[int, dict[str, Any]]] = {}
    for fact in inputs.of("open incident", "change incident", "finding"):
        figures = _figures(fact)
        if isinstance(figures.get("uplift"), int | float):
            newest[fact.model] = (fact.seq, figures)
    rows = []
    for item in monitored_models(inputs)["models"]:
        model = item["model"]
        if not item["production"] and not item["elsewhere"]:
            continue
        seq, figures = newest.get(model, (0, {}))
        rows.append(
            {
                "model": model,
                "measured": bool(seq),
                **{
                    key: figures.get(key)
                    for key in ("uplift", "uplift_low", "uplift_high", "money", "customers")
                },
                "entries": [seq] if seq else [],
            }
        )
    return rows


def _figures(fact: Fact) -> dict[str, Any]:
    text = fact.after.get("figures", "")
    if fact.action == "finding":
        text = fact.after.get("text", "") if fact.after.get("kind") == "figures" else ""
    try:
        value = json.loads(text or "{}")
    except (ValueError, TypeError):
        return {}
    return value if isinstance(value, dict) else {}


def _entries(groups: Iterable[Sequence[int]]) -> tuple[int, ...]:
    return tuple(sorted({seq for group in groups for seq in group}))


def _counts(words: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    return dict(sorted(counts.items()))
