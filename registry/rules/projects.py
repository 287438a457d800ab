"""The definitions of a project, as the registry keeps them, and what a new revision may change.

No I/O. Definitions are canonical JSON:

    {"format": 1, "name": "shop",
     "views": {"usage": {"canonical": {...}, "hash": "<SHA-256 of canonical>", ...}},
     "labels": {...}, "recipes": {...},
     "models": {"churn": {"holdout_bp": 500, "serving": {"deadline_ms_default": 80},
                         "monitoring": {...}, ...}},
     "policies": {"careful": {"base": "standard", ...}},
     "schedules": {"weekly": {"model": "churn", "cron": "0 4 * * 1", ...}}}

`canonical` is what features.views.View.definition returns. `serving` has fields of ServingPolicy; a
model without it, or without `holdout_bp`, keeps what its deployment has. A policy has the tables of
its TOML file, a schedule what registry/schedules/schedule.py says, and `monitoring` what
registry/watching/policy.py says. Without schedules there is
no such section. Other sections and other fields are kept and not read here.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError

from features.canonical import canonical_json, sha256_hex
from host.text import CONTROL
from protos import registry_pb2 as pb
from registry.rules.settings import ModelSettings, check_serving_policy
from registry.schedules.schedule import Schedule, ScheduleError, parse_schedule
from registry.types import ALL_BP, BadRequestError, GateError, NotAllowedError
from registry.watching.policy import MonitoringPolicy
from registry.watching.policy_reader import MonitoringPolicyError, read_monitoring_policy

FORMAT = 1
PROJECT_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.@-]{0,63}")
MODEL_TEXTS = ("owner", "purpose", "tier", "score_meaning", "default_policy")
MODEL_TEXT_BYTES_MAX = 1_024
OWNED_SECTIONS = ("views", "models", "policies")
"""Sections whose names belong to one project, because others refer to them by name."""
OPERATORS_SECTIONS = ("models", "policies")
"""Sections that only an operator changes: they decide what gateways and rollouts do."""


@dataclass(frozen=True, slots=True)
class Definitions:
    """The parsed definitions of a project."""

    name: str
    sections: Mapping[str, Mapping[str, Any]]
    """Section -> name -> definition; of a view its hash. Only OWNED_SECTIONS are in it."""
    settings: Mapping[str, ModelSettings]
    """Model -> its settings."""
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    monitoring: Mapping[str, MonitoringPolicy] = field(default_factory=dict)
    """Model -> how it is watched. Models whose settings say nothing are not in it."""

    def about(self, model: str) -> pb.ProjectModel:
        """Return what the project says about a model that it has."""
        definition = self.sections["models"][model]
        texts = {key: definition.get(key, "") for key in MODEL_TEXTS}
        return pb.ProjectModel(project=self.name, **texts)

    def replay_days(self, policy: str) -> float:
        """Return `replay_days` of a policy, or of an edition such as "careful@churn"; 0: none."""
        name, _, model = policy.partition("@")
        tables = self.sections["policies"].get(name, {})
        editions = tables.get("models")
        edition = editions.get(model) if isinstance(editions, dict) else None
        # An edition has what it does not say from its policy.
        days = {**tables, **(edition if isinstance(edition, dict) else {})}.get("replay_days")
        return max(0.0, float(days)) if isinstance(days, int | float) else 0.0


@dataclass(frozen=True, slots=True)
class ReadingVersion:
    """A version that gateways may run, and the views that it reads."""

    model: str
    label: str
    role: str
    """Such as "production" or "staging"."""
    views: tuple[tuple[str, str], ...] | None
    """(name, hash) of each view; None: they cannot be read."""


def read_definitions(name: str, content: bytes) -> Definitions:
    """Parse the definitions of the project *name*. Raises BadRequestError, which says the place."""
    # The bytes are canonical, so that equal definitions have equal digests.
    try:
        value = json.loads(content)
        is_canonical = isinstance(value, dict) and canonical_json(value) == content
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"the definitions of {name!r} are not JSON: {error}") from error
    if not is_canonical or value.get("format") != FORMAT or value.get("name") != name:
        raise BadRequestError(
            f"the definitions of {name!r} are not canonical JSON with format {FORMAT} and this "
            "name; apply them with the turnout command of this release"
        )
    # Every section is a table of names.
    sections = {section: value.get(section, {}) for section in OWNED_SECTIONS}
    for section, definitions in sections.items():
        if not isinstance(definitions, dict):
            raise BadRequestError(f"{section} of {name!r} is no table of names")
        for item, definition in definitions.items():
            if not NAME.fullmatch(item) or not isinstance(definition, dict):
                raise BadRequestError(
                    f"{section} of {name!r}: {item[:80]!r} is no plain name with a table"
                )
    # The parts that the registry acts by.
    views = {view: _checked_hash(view, item) for view, item in sections["views"].items()}
    settings = {model: _settings(model, item) for model, item in sections["models"].items()}
    return Definitions(
        name,
        {**sections, "views": views},
        settings,
        _schedules(name, value),
        _monitoring(sections["models"]),
    )


def _monitoring(models: Mapping[str, Mapping[str, Any]]) -> dict[str, MonitoringPolicy]:
    policies = {}
    for model, definition in models.items():
        if definition.get("monitoring") is None:
            continue
        try:
            policies[model] = read_monitoring_policy(definition["monitoring"])
        except MonitoringPolicyError as error:
            raise BadRequestError(f"monitoring of model {model!r}: {error}") from error
    return policies


def _schedules(name: str, value: Mapping[str, Any]) -> dict[str, Schedule]:
    tables = value.get("schedules", {})
    if not isinstance(tables, dict):
        raise BadRequestError(f"schedules of {name!r} is no table of names")
    try:
        return {item: parse_schedule(item, table) for item, table in tables.items()}
    except ScheduleError as error:
        raise BadRequestError(f"schedules of {name!r}: {error}") from error


def _checked_hash(view: str, definition: Mapping[str, Any]) -> str:
    canonical = definition.get("canonical")
    if not isinstance(canonical, dict) or canonical.get("name") != view:
        raise BadRequestError(f"view {view!r} has no canonical definition of that name")
    computed = sha256_hex(canonical_json(canonical))
    if definition.get("hash") != computed:
        raise BadRequestError(
            f"view {view!r} has the hash {str(definition.get('hash'))[:16]!r}; its canonical "
            f"definition has {computed[:16]}"
        )
    return computed


def _settings(model: str, definition: Mapping[str, Any]) -> ModelSettings:
    for key in MODEL_TEXTS:
        text = definition.get(key, "")
        is_text = isinstance(text, str) and len(text.encode()) <= MODEL_TEXT_BYTES_MAX
        if not is_text or CONTROL.search(text):
            raise BadRequestError(
                f"{key} of model {model!r} is no text in one line of at most "
                f"{MODEL_TEXT_BYTES_MAX} bytes"
            )
    holdout_bp, serving = definition.get("holdout_bp"), definition.get("serving")
    is_share = type(holdout_bp) is int and 0 <= holdout_bp <= ALL_BP
    if holdout_bp is not None and not is_share:
        raise BadRequestError(
            f"model {model!r} has holdout_bp {holdout_bp!r}; it is a whole number of basis points, "
            f"0 to {ALL_BP}"
        )
    if serving is None:
        return ModelSettings(holdout_bp, None)
    try:
        policy = ParseDict(serving, pb.ServingPolicy())
    except (ParseError, TypeError, AttributeError, ValueError) as error:
        names = ", ".join(field.name for field in pb.ServingPolicy.DESCRIPTOR.fields)
        raise BadRequestError(
            f"serving of model {model!r} cannot be read ({error}); its fields are {names}"
        ) from error
    check_serving_policy(policy)
    return ModelSettings(holdout_bp, policy)


def check_owners(new: Definitions, others: Iterable[Definitions]) -> None:
    """Refuse a name that another project has. Raises GateError."""
    for other in others:
        for section in OWNED_SECTIONS:
            shared = sorted(new.sections[section].keys() & other.sections[section].keys())
            if shared:
                raise GateError(
                    f"{section[:-1] if section != 'policies' else 'policy'} {shared[0]!r} belongs "
                    f"to project {other.name!r}; a name has one project. Take it out of "
                    f"{other.name!r} first, or choose another name"
                )


def check_removed_views(
    before: Definitions | None, new: Definitions, versions: Iterable[ReadingVersion]
) -> None:
    """Refuse to remove a view that a version reads which gateways may run. Raises GateError.

    A changed view is not removed: its editions stand side by side.
    """
    known = {} if before is None else before.sections["views"]
    removed = known.keys() - new.sections["views"].keys()
    if not removed:
        return
    for version in versions:
        named = f"version {version.label} of {version.model!r} ({version.role})"
        if version.views is None:
            raise GateError(
                f"view {min(removed)!r} cannot be removed: {named} may read it, and its "
                "contract.json cannot be read. Archive that version, or restore its files"
            )
        for view, view_hash in version.views:
            if view in removed:
                raise GateError(
                    f"view {view!r} cannot be removed: {named} reads it, edition "
                    f"{view_hash[:12]}. Keep the view until no such version reads it: archive "
                    "staged ones, replace the others"
                )


def check_rights(before: Definitions | None, new: Definitions, *, operator: bool) -> None:
    """Refuse a change of models and policies by anybody but an operator."""
    if operator:
        return
    for section in OPERATORS_SECTIONS:
        known = {} if before is None else before.sections[section]
        if known != new.sections[section]:
            raise NotAllowedError(
                f"this changes {section} of project {new.name!r}, which only an operator does; an "
                "author changes views, labels and recipes. Let an operator apply the same plan"
            )
