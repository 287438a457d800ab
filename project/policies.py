"""Rollout policies of a project: the files of `policies/`, in the form of docs/rollout.md."""

from collections.abc import Mapping
from typing import Any

from features.canonical import canonical_json
from project.errors import Problem, ProjectError
from project.folder import ProjectFolder, files_below, read_toml
from rollout.errors import PolicyError
from rollout.policy.policy import POLICIES
from rollout.policy.policy_files import parse_policies

FOLDER = "policies"
BUILT_IN = tuple(POLICIES)
"""The names of the policies that every system has."""


def read_policies(
    project: ProjectFolder,
) -> tuple[dict[str, tuple[dict[str, Any], str]], list[Problem]]:
    """Return policy -> (the tables of its file, the file), and what is wrong in other files."""
    files, problems = files_below(project, (FOLDER,), ".toml")
    policies: dict[str, tuple[dict[str, Any], str]] = {}
    for path in files:
        shown = project.relative(path)
        try:
            tables = read_toml(path, shown)
            name = next(iter(parse_policies(tables, shown, POLICIES)))
            canonical_json(tables)
        except (PolicyError, ProjectError, TypeError, ValueError) as error:
            problems.append(Problem(shown, 0, str(error).removeprefix(f"{shown}: ")))
            continue
        if name in policies or name in POLICIES:
            other = policies[name][1] if name in policies else "Turnout itself"
            problems.append(Problem(shown, 0, f"there is a policy {name!r} already, of {other}"))
        else:
            policies[name] = (tables, shown)
    return policies, problems


def policy_digests(policies: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return policy or edition, such as "careful@churn" -> its digest, as approvals name it.

    Raises ProjectError when a policy cannot be read.
    """
    digests: dict[str, str] = {}
    for name, tables in policies.items():
        try:
            parsed = parse_policies(tables, name, POLICIES)
        except PolicyError as error:
            raise ProjectError(f"policy {name!r} cannot be read: {error}") from error
        digests |= {edition: policy.digest for edition, policy in parsed.items()}
    return digests
