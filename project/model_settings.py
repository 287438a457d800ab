"""Model settings: `Model` in a Python file of the project, or one TOML file for each model.

`models/churn.toml`, which says the same as Model(name="churn", owner="network-ds", ...):

    owner = "network-ds"
    purpose = "Whom the retention team calls first."
    tier = "standard"
    score_meaning = "Probability that the customer leaves within 30 days."
    holdout_bp = 500
    default_policy = "careful"

    [serving]
    deadline_ms_default = 80
    features_required = false

    [monitoring.outcomes.churned]
    positive_when = ">= 1"
    horizon = "30d"

registry/watching/policy.py says what [monitoring] has.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError

from project.errors import Problem, ProjectError
from project.folder import ProjectFolder, files_below, read_toml
from protos import registry_pb2
from registry.types import ALL_BP, MODEL_NAME
from registry.watching.policy_reader import (
    MonitoringPolicyError,
    check_policy_names,
    read_monitoring_policy,
)

FOLDER = "models"
MONITORING = "monitoring: "
"""Begins the text of a problem in [monitoring]; the key that is wrong follows."""
ANSWERS_SUFFIX = ".adopt.toml"
"""Ends the names of files that say how a model of another tool was adopted."""
TIERS = ("critical", "standard", "experimental")
TEXTS = ("owner", "purpose", "score_meaning", "default_policy")
NEEDED = ("owner", "purpose", "score_meaning")
KEYS = (
    "owner",
    "purpose",
    "tier",
    "score_meaning",
    "holdout_bp",
    "default_policy",
    "serving",
    "monitoring",
)

_KINDS: dict[int, tuple[type, ...]] = {
    FieldDescriptor.CPPTYPE_BOOL: (bool,),
    FieldDescriptor.CPPTYPE_FLOAT: (int, float),
    FieldDescriptor.CPPTYPE_UINT32: (int,),
}
SERVING_FIELDS = {
    field.name: _KINDS[field.cpp_type] for field in registry_pb2.ServingPolicy.DESCRIPTOR.fields
}
"""Field of ServingPolicy -> the types that its value may have in TOML."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What people and gateways are told of a model. Every field but *name* is a key of the TOML.

    owner           who answers for the model.
    purpose         what its scores are used for.
    score_meaning   what the number says.
    tier            "critical", "standard" or "experimental".
    holdout_bp      size of the control group in basis points, 0 to 10,000. None: a deployment keeps
                    what it has.
    default_policy  the rollout policy of `turnout rollout start`.
    serving         field of the serving policy -> value. None: a deployment keeps what it has.
    monitoring      the tables of [monitoring]. None: the defaults, without outcomes.

    Raises ProjectError that names the wrong field.
    """

    name: str
    owner: str
    purpose: str
    score_meaning: str
    tier: Literal["critical", "standard", "experimental"] = "standard"
    holdout_bp: int | None = None
    default_policy: str = ""
    serving: Mapping[str, float | bool] | None = None
    monitoring: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not MODEL_NAME.fullmatch(self.name):
            raise ProjectError(f"model {self.name!r}: its name must match {MODEL_NAME.pattern}")
        try:
            self.definition()
        except ProjectError as error:
            raise ProjectError(f"model {self.name!r}: {error}") from error

    def definition(self) -> dict[str, Any]:
        """Return the settings as JSON values, for the project's definitions."""
        tables = {
            key: dict(value) if isinstance(value := getattr(self, key), Mapping) else value
            for key in ("serving", "monitoring")
        }
        return checked_settings({**{key: getattr(self, key) for key in KEYS}, **tables})


def read_model_settings(
    project: ProjectFolder,
) -> tuple[dict[str, dict[str, Any]], list[Problem]]:
    """Return model -> its settings as JSON values, and what is wrong in other files."""
    files, problems = files_below(project, (FOLDER,), ".toml")
    files = [path for path in files if not path.name.endswith(ANSWERS_SUFFIX)]
    settings: dict[str, dict[str, Any]] = {}
    for path in files:
        shown = project.relative(path)
        if not MODEL_NAME.fullmatch(path.stem):
            text = f"the file's name is the model's; it must match {MODEL_NAME.pattern}"
            problems.append(Problem(shown, 0, text))
            continue
        try:
            settings[path.stem] = checked_settings(read_toml(path, shown))
        except ProjectError as error:
            text = str(error).removeprefix(f"{shown}: ")
            problems.append(Problem(shown, monitoring_line(path, text), text))
    return settings, problems


def checked_settings(tables: dict[str, Any]) -> dict[str, Any]:
    """Return the settings in *tables*; ProjectError says which key is wrong.

    Without `holdout_bp` or [serving], a deployment keeps what it has.
    """
    # Names first: a key that is not known would be without effect.
    unknown = sorted(tables.keys() - set(KEYS))
    if unknown:
        raise ProjectError(f"{unknown} is not known; the keys are {', '.join(KEYS)}")
    for key in TEXTS:
        if not isinstance(tables.get(key, ""), str) or (key in NEEDED and not tables.get(key)):
            raise ProjectError(f"{key} = {tables.get(key)!r}; it must be a text, not empty")
    if tables.get("tier", "standard") not in TIERS:
        raise ProjectError(f"tier = {tables['tier']!r}; it must be one of {', '.join(TIERS)}")
    # A value of the wrong type must not be turned into another one.
    holdout_bp, serving = tables.get("holdout_bp"), tables.get("serving")
    is_share = type(holdout_bp) is int and 0 <= holdout_bp <= ALL_BP
    if holdout_bp is not None and not is_share:
        raise ProjectError(
            f"holdout_bp = {holdout_bp!r}; it is a whole number of basis points, 0 to {ALL_BP} "
            "(100 = 1 %)"
        )
    if serving is not None:
        _check_serving(serving)
    # A model without [monitoring] has no such key, so its digest is that of an earlier release.
    watched = tables.get("monitoring")
    try:
        monitoring = None if watched is None else read_monitoring_policy(watched).definition()
    except MonitoringPolicyError as error:
        raise ProjectError(f"{MONITORING}{error}") from error
    return {
        "owner": tables["owner"],
        "purpose": tables["purpose"],
        "tier": tables.get("tier", "standard"),
        "score_meaning": tables["score_meaning"],
        "holdout_bp": holdout_bp,
        "default_policy": tables.get("default_policy", ""),
        "serving": serving,
        **({} if monitoring is None else {"monitoring": monitoring}),
    }


def check_monitoring_names(
    project: ProjectFolder,
    sections: Mapping[str, Mapping[str, Mapping[str, Any]]],
    places: Mapping[str, tuple[str, int]],
) -> list[Problem]:
    """Return the names in [monitoring] of the models that the project does not have.

    sections  "models", "recipes" and "views" of the project's definitions.
    places    model -> the file that declares it, and the line there or 0.
    """
    models, recipes, views = (sections[name] for name in ("models", "recipes", "views"))
    problems = []
    for model, settings in models.items():
        if settings.get("monitoring") is None:
            continue
        # Outcomes and features are those of the model's recipes.
        own = [recipe for recipe in recipes.values() if recipe["model"] == model]
        outcomes = {name for recipe in own for name in _label_names(recipe)}
        used = {use["view"] for recipe in own for use in recipe["features"]}
        features = {
            feature["name"]: bool(feature["dictionary"])
            for view in sorted(used & views.keys())
            for feature in views[view]["canonical"]["features"]
        }
        # Request inputs and on-demand features are numbers.
        later = [part for recipe in own for part in ("inputs", "on_demand") if recipe.get(part)]
        features |= {
            item["name"]: False for recipe in own for part in later for item in recipe.get(part, ())
        }
        try:
            policy = read_monitoring_policy(settings["monitoring"])
            check_policy_names(policy, outcomes=outcomes, features=features, views=views)
        except MonitoringPolicyError as error:
            text = f"{MONITORING}{error}"
            file, line = places[model]
            found = monitoring_line(project.root / file, text) if file.endswith(".toml") else 0
            problems.append(Problem(file, found or line, text))
    return problems


def _label_names(recipe: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names that the outcome of a recipe has: of its labels, and of their column."""
    yield from {name for key in ("label", "labels") if (name := recipe.get(key))}


def monitoring_line(path: Path, problem: str) -> int:
    """Return the line of the key that a problem of [monitoring] begins with, or of its table.

    0 for another problem, and where the key is not found.
    """
    key = re.match(rf"{MONITORING}([\w.-]+)", problem)
    if key is None:
        return 0
    # The longest table that the key begins with, and in it the next part of the key.
    parts = ("monitoring", *key[1].strip(".").split("."))
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    headers = {
        tuple(part.strip(" \"'") for part in found[1].split(".")): number
        for number, line in enumerate(lines, 1)
        if (found := re.match(r"\s*\[([^\[\]]+)\]", line))
    }
    for size in range(len(parts), 0, -1):
        start = headers.get(parts[:size])
        if start is None:
            continue
        for number, line in enumerate(lines[start:], start + 1):
            if line.lstrip().startswith("["):
                break
            if size < len(parts) and re.match(rf"\s*[\"']?{re.escape(parts[size])}\b", line):
                return number
        return start
    return 0


def _check_serving(serving: object) -> None:
    if not isinstance(serving, dict):
        raise ProjectError("serving must be a table, [serving]")
    for key, value in serving.items():
        if key not in SERVING_FIELDS:
            raise ProjectError(
                f"serving.{key} is not known; the fields are {', '.join(SERVING_FIELDS)}"
            )
        if type(value) not in SERVING_FIELDS[key]:
            expected = " or ".join(kind.__name__ for kind in SERVING_FIELDS[key])
            raise ProjectError(f"serving.{key} = {value!r}; it must be of type {expected}")
        if not math.isfinite(value):
            raise ProjectError(f"serving.{key} = {value!r}; it must be finite")
    try:
        ParseDict(serving, registry_pb2.ServingPolicy())
    except (ParseError, ValueError) as error:
        raise ProjectError(f"serving cannot be read: {error}") from error
