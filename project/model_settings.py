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
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError

from project.errors import Problem, ProjectError
from project.folder import ProjectFolder, files_below, read_toml
from protos import registry_pb2
from registry.types import ALL_BP, MODEL_NAME

FOLDER = "models"
ANSWERS_SUFFIX = ".adopt.toml"
"""Ends the names of files that say how a model of another tool was adopted."""
TIERS = ("critical", "standard", "experimental")
TEXTS = ("owner", "purpose", "score_meaning", "default_policy")
NEEDED = ("owner", "purpose", "score_meaning")
KEYS = ("owner", "purpose", "tier", "score_meaning", "holdout_bp", "default_policy", "serving")

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

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not MODEL_NAME.fullmatch(self.name):
            raise ProjectError(f"model {self.name!r}: its name must match {MODEL_NAME.pattern}")
        try:
            self.definition()
        except ProjectError as error:
            raise ProjectError(f"model {self.name!r}: {error}") from error

    def definition(self) -> dict[str, Any]:
        """Return the settings as JSON values, for the project's definitions."""
        serving = dict(self.serving) if isinstance(self.serving, Mapping) else self.serving
        return checked_settings({**{key: getattr(self, key) for key in KEYS}, "serving": serving})


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
            problems.append(Problem(shown, 0, str(error).removeprefix(f"{shown}: ")))
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
    return {
        "owner": tables["owner"],
        "purpose": tables["purpose"],
        "tier": tables.get("tier", "standard"),
        "score_meaning": tables["score_meaning"],
        "holdout_bp": holdout_bp,
        "default_policy": tables.get("default_policy", ""),
        "serving": serving,
    }


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
