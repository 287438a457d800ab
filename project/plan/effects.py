"""What a change touches: versions, recipes, approvals and settings. No I/O."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.json_format import ParseDict

from features.contract import RequestInput
from project.definitions import ProjectDefinitions
from project.plan.differences import Change
from project.plan.fleet import FleetSnapshot, FleetVersion, serving_json
from project.policies import policy_digests
from protos import registry_pb2


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing that a change touches."""

    kind: str
    """"version", "recipe", "approval", "settings" or "callers"."""
    name: str
    """What it is, such as "churn 7"."""
    text: str
    """What happens to it, as a sentence."""
    blocking: bool = False
    """Whether the registry refuses the change because of it."""


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """A change, and everything that it touches."""

    change: Change
    effects: tuple[Effect, ...]


def with_effects(
    change: Change,
    applied: ProjectDefinitions | None,
    target: ProjectDefinitions,
    fleet: FleetSnapshot,
) -> PlannedChange:
    """Return *change* with its effects on *fleet* and on the project's own recipes."""
    effects: list[Effect] = []
    if change.section == "views":
        effects += _view_effects(change, target, fleet)
    elif change.section == "policies" and applied is not None:
        effects += _policy_effects(change, applied, target, fleet)
    elif change.section == "models":
        effects += _model_effects(change, target, fleet)
    elif change.section == "labels":
        effects += _label_effects(change, target)
    elif change.section == "recipes":
        effects += _caller_effects(change, target, fleet)
    # What the registry would refuse breaks something, and so do other calls.
    refused = change.kind == "removed" and any(effect.blocking for effect in effects)
    if refused or any(effect.kind == "callers" for effect in effects):
        change = replace(change, impact="breaking")
    return PlannedChange(change, tuple(effects))


def _view_effects(
    change: Change, target: ProjectDefinitions, fleet: FleetSnapshot
) -> Iterator[Effect]:
    if change.kind == "added" or change.impact in ("descriptive", "formatting"):
        return
    # The same edition with other rows: its source has changed.
    if change.old_hash == change.new_hash:
        for version in fleet.versions:
            if _reads(version, change.name, change.old_hash):
                text = f"{version.shown} reads this edition; its next rows come from the new source"
                yield Effect("version", f"{version.model} {version.label}", text)
        return
    for version in fleet.versions:
        if change.kind == "removed" and _reads(version, change.name, None):
            text = (
                f"{version.shown} reads {change.name}, so the view cannot be removed; keep it "
                "until no such version reads it"
            )
            yield Effect("version", f"{version.model} {version.label}", text, blocking=True)
        elif change.kind == "changed" and _reads(version, change.name, change.old_hash):
            text = (
                f"{version.shown} reads edition {change.old_hash[:12]} and goes on reading it; "
                "fill both editions until a version of the new one has replaced it"
            )
            yield Effect("version", f"{version.model} {version.label}", text)
    for name, recipe in target.recipes.items():
        if any(use["view"] == change.name for use in [*recipe["features"], *recipe["audit"]]):
            text = f"recipe {name} reads the new edition of {change.name} when it is trained next"
            yield Effect("recipe", name, text)


def _reads(version: FleetVersion, view: str, view_hash: str | None) -> bool:
    """Whether *version* reads the view, in this edition or, with None, in any.

    A version with an unknown contract may read every view.
    """
    if version.views is None:
        return view_hash is None
    return any(name == view and view_hash in (None, hash_read) for name, hash_read in version.views)


def _policy_effects(
    change: Change, applied: ProjectDefinitions, target: ProjectDefinitions, fleet: FleetSnapshot
) -> Iterator[Effect]:
    """Yield approvals whose policy is no more what was approved."""
    if change.kind == "added":
        return
    old = policy_digests({change.name: applied.policies[change.name]})
    staying = {change.name: target.policies[change.name]} if change.kind == "changed" else {}
    new = policy_digests(staying)
    gone = {digest: name for name, digest in old.items() if new.get(name) != digest}
    for approval in fleet.approvals:
        if approval.digest in gone:
            text = (
                f"the approval of {approval.model} {approval.version} by {approval.approver} is "
                f"for the old numbers of {gone[approval.digest]}; before a rollout the version is "
                "approved anew"
            )
            yield Effect("approval", f"{approval.model} {approval.version}", text)
    for version in fleet.versions:
        if version.rolling and any(
            (item.model, item.version) == (version.model, version.label) and item.digest in gone
            for item in fleet.approvals
        ):
            text = f"the rollout of {version.shown} goes on under the policy of its start"
            yield Effect("version", f"{version.model} {version.label}", text)


def _model_effects(
    change: Change, target: ProjectDefinitions, fleet: FleetSnapshot
) -> Iterator[Effect]:
    """Yield the settings of a deployment that change, which another person approves first."""
    deployment = fleet.deployments.get(change.name)
    if deployment is None or change.kind == "removed":
        return
    settings = target.models[change.name]
    changed = list(_settings_changes(settings, deployment.holdout_bp, deployment.policy))
    if not changed:
        return
    needs = (
        "; another person approves these settings first: turnout splits approve"
        if deployment.production
        else ""
    )
    text = f"the deployment of {change.name} gets {', '.join(changed)}{needs}"
    yield Effect("settings", change.name, text)


def _settings_changes(
    settings: Mapping[str, Any], holdout_bp: int, policy: registry_pb2.ServingPolicy
) -> Iterator[str]:
    if settings["holdout_bp"] not in (None, holdout_bp):
        yield f"holdout_bp {holdout_bp} -> {settings['holdout_bp']}"
    if settings["serving"] is None:
        return
    # Both through the message, so that floats are compared as the registry stores them.
    new = serving_json(ParseDict(dict(settings["serving"]), registry_pb2.ServingPolicy()))
    old = serving_json(policy)
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield f"{name} {old.get(name, 0)} -> {new.get(name, 0)}"


def _label_effects(change: Change, target: ProjectDefinitions) -> Iterator[Effect]:
    for name, recipe in target.recipes.items():
        if change.kind == "changed" and recipe["labels"] == change.name:
            text = f"recipe {name} learns from other labels when it is trained next"
            yield Effect("recipe", name, text)


def _caller_effects(
    change: Change, target: ProjectDefinitions, fleet: FleetSnapshot
) -> Iterator[Effect]:
    """Yield the version in production that needs other calls than the recipe's versions."""
    if change.kind == "removed":
        return
    recipe = target.recipes[change.name]
    model, live = recipe["model"], fleet.live_contracts.get(recipe["model"])
    if live is None:
        return
    # What a call must have, as the registry compares it before versions share calls.
    inputs = tuple(map(RequestInput.from_definition, recipe.get("inputs", ())))
    now = _call_parts(live.entities, live.inputs, live.outputs)
    then = _call_parts(recipe["entities"], inputs, (recipe["label"],))
    if now == then:
        return
    production = f"{model} {fleet.deployments[model].production}"
    text = (
        f"callers: {production} (production) takes {_listed(now)}; a version of recipe "
        f"{change.name} would take {_listed(then)}. The registry lets no two such versions share "
        "a model's calls: keep what callers send, or give the recipe another model, to which "
        "callers move"
    )
    yield Effect("callers", production, text)


def _call_parts(
    entities: Sequence[str], inputs: Sequence[RequestInput], outputs: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Return (noun, names) of everything that a call and its reply have."""
    return (
        ("keys", ", ".join(entities)),
        ("inputs", ", ".join(map(_shown_input, inputs)) or "none"),
        ("outputs", ", ".join(outputs)),
    )


def _listed(parts: tuple[tuple[str, str], ...]) -> str:
    return "; ".join(f"{noun}: {names}" for noun, names in parts)


def _shown_input(item: RequestInput) -> str:
    kind = f"one of {'/'.join(item.dictionary)}" if item.dictionary else "a number"
    default = "" if item.default is None else f", else {item.default:g}"
    return f"{item.name} ({kind}{default})"
