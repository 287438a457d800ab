"""Reads policies from TOML files. Each file names a base and the fields that differ from it.

A [models.churn] table in the file of "careful" makes an edition "careful@churn". A rollout of churn
under "careful" uses that edition. docs/rollout.md has an example.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

from rollout.errors import PolicyError
from rollout.policy.policy import POLICIES, CanaryStep, GoodOutcome, Policy, ShadowStage

POLICY_FIELDS = {field.name: field for field in fields(Policy) if field.name != "name"}
NUMBER_TYPES = (int, float)


def read_policy_file(path: Path, known: Mapping[str, Policy] = POLICIES) -> dict[str, Policy]:
    """Return the policies in one file, by name. Raises PolicyError."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PolicyError(f"{path.name}: {error}") from error
    return parse_policies(tables, path.name, known)


def read_policy_folder(folder: Path, known: Mapping[str, Policy] = POLICIES) -> dict[str, Policy]:
    """Return *known* and every policy of the folder's .toml files.

    Raises PolicyError, also for a name that exists twice.
    """
    policies = dict(known)
    for path in sorted(folder.glob("*.toml")):
        for name, policy in read_policy_file(path, known).items():
            if name in policies:
                raise PolicyError(f"{path.name}: there is a policy {name!r} already")
            policies[name] = policy
    return policies


def parse_policies(
    tables: Mapping[str, Any], where: str, known: Mapping[str, Policy]
) -> dict[str, Policy]:
    """Return the policy and the editions that the tables of one file describe, by name.

    where  the file's name, for error messages.
    known  the policies that can be the base.
    """
    tables = dict(tables)
    name, base = tables.pop("name", ""), tables.pop("base", "")
    editions = tables.pop("models", {})
    if not isinstance(name, str) or not name or "@" in name or not isinstance(editions, dict):
        raise PolicyError(f"{where}: a policy needs a name (without @), and models as tables")
    if not isinstance(base, str) or base not in known:
        raise PolicyError(
            f"{where}: base {base!r} is not known; build on one of {', '.join(sorted(known))}"
        )
    policy = _derive_policy(known[base], name, tables, where)
    policies = {name: policy}
    for model, changes in editions.items():
        if not isinstance(changes, dict):
            raise PolicyError(f"{where} [models.{model}]: the fields of an edition are a table")
        edition = f"{name}@{model}"
        policies[edition] = _derive_policy(policy, edition, changes, f"{where} [models.{model}]")
    return policies


def _derive_policy(base: Policy, name: str, tables: Mapping[str, Any], where: str) -> Policy:
    changes: dict[str, Any] = {}
    for key, value in tables.items():
        if key not in POLICY_FIELDS:
            raise PolicyError(
                f"{where}: {key!r} is no field of a policy; there are "
                f"{', '.join(sorted(POLICY_FIELDS))}"
            )
        changes[key] = _field(base, key, value, where)
    try:
        return replace(base, name=name, **changes)
    except ValueError as error:
        raise PolicyError(f"{where}: {error}") from error


def _field(base: Policy, key: str, value: Any, where: str) -> Any:  # noqa: ANN401  TOML's own
    """Return the value of one field of a policy. Raises PolicyError if the value does not fit."""
    # Tables and lists of tables.
    if key == "shadow":
        if value is False:
            return None
        before = base.shadow or ShadowStage(
            sample_bp=10_000, pairs_min=1_000, bake_s=60.0, faulty_max=0, flips_bp_max=1_000
        )
        return _table(replace(before), value, f"{where} [shadow]")
    if key == "canary":
        if not isinstance(value, list):
            raise PolicyError(f"{where}: canary is a list of [[canary]] tables")
        zero = CanaryStep(share_bp=0, bake_s=0.0)
        return tuple(_table(zero, step, f"{where} [[canary]]", require_all=True) for step in value)
    if key == "outcome":
        return _good_outcome(value, where)
    # The weights that are not given stay those of the base.
    if key == "weights":
        if not isinstance(value, dict) or not all(
            isinstance(weight, NUMBER_TYPES) for weight in value.values()
        ):
            raise PolicyError(f"{where}: weights are a table of numbers, one a metric")
        merged = {**dict(base.weights), **value}
        if set(merged) != set(dict(base.weights)):
            raise PolicyError(f"{where}: weights are of {', '.join(dict(base.weights))} only")
        return tuple(merged.items())
    # Lists of texts, and numbers.
    if isinstance(getattr(base, key), tuple):
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise PolicyError(f"{where}: {key} is a list of words")
        return tuple(value)
    return _number(getattr(base, key), key, value, where)


def _good_outcome(value: Any, where: str) -> GoodOutcome | None:  # noqa: ANN401  TOML's own
    if value is False:
        return None
    where = f"{where} [outcome]"
    known = ("name", "at_least", "at_most", "trusted_callers", "trust_anonymous")
    if not isinstance(value, dict) or set(value) - set(known):
        raise PolicyError(f"{where}: its fields are {', '.join(known)}")
    given = dict(value)
    for field in {"at_least", "at_most"} & set(value):
        given[field] = _number(0.0, field, value[field], where)
    if not isinstance(given.get("name"), str):
        raise PolicyError(f"{where}: name is the name under which callers report it")
    # The callers that may move a verdict alone.
    trusted = given.get("trusted_callers", [])
    if not isinstance(trusted, list) or not all(isinstance(name, str) for name in trusted):
        raise PolicyError(f"{where}: trusted_callers is a list of callers' names")
    if not isinstance(given.get("trust_anonymous", False), bool):
        raise PolicyError(f"{where}: trust_anonymous is true or false")
    given["trusted_callers"] = tuple(sorted(trusted))
    try:
        return GoodOutcome(**given)
    except ValueError as error:
        raise PolicyError(f"{where}: {error}") from error


def _table(before: Any, value: Any, where: str, *, require_all: bool = False) -> Any:  # noqa: ANN401
    """Return *before* with the fields that *value* gives."""
    known = {field.name: field for field in fields(before)}
    if not isinstance(value, dict) or set(value) - set(known):
        raise PolicyError(f"{where}: its fields are {', '.join(known)}")
    required = {name for name, field in known.items() if field.default is MISSING}
    if require_all and (absent := required - set(value)):
        raise PolicyError(f"{where}: {', '.join(sorted(absent))} must be given")
    changes = {
        name: _number(getattr(before, name), name, number, where) for name, number in value.items()
    }
    return replace(before, **changes)


def _number(default: Any, key: str, value: Any, where: str) -> Any:  # noqa: ANN401
    wanted = NUMBER_TYPES if isinstance(default, float) else (int,)
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise PolicyError(f"{where}: {key} is a {'number' if float in wanted else 'whole number'}")
    try:
        return float(value) if isinstance(default, float) else value
    except OverflowError as error:
        raise PolicyError(f"{where}: {key} is larger than any number here") from error
