"""Steps that commands about a project share: load its files, read what is applied, plan."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from host.git import commit_of, uncommitted_files
from project.definitions import ProjectDefinitions, parse_definitions
from project.loading.loader import LoadedProject, load_project
from project.plan.differences import changes_between, with_applied_texts
from project.plan.fleet import read_fleet
from project.plan.plan import Plan, make_plan
from project.plan.sample import SampleSettings
from registry.client import RegistryClient
from registry.types import ProjectRevision, RegistryUnavailableError
from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.errors import NotReachableError, OperatorError


async def load_definitions(context: CommandContext) -> ProjectDefinitions:
    """Return what the project's files declare. Raises ProjectError with every problem."""
    return (await load_project(context.required_project())).required()


async def plan_change(
    context: CommandContext,
    client: RegistryClient,
    local: ProjectDefinitions,
    sample: SampleSettings | None = None,
) -> Plan:
    """Compare *local* with what is applied in the environment.

    sample  how rows of added and changed views are looked at; None: they are not.
    """
    project, environment = context.required_project(), context.required_environment()
    newest = await client.get_project(project.name)
    applied = None if newest is None else parse_definitions(newest.definitions)
    # A recipe that changes may ask for other calls than production answers.
    changed = [
        local.recipes[change.name]["model"]
        for change in changes_between(applied, local)
        if change.section == "recipes" and change.kind != "removed"
    ]
    return make_plan(
        environment.name,
        applied,
        0 if newest is None else newest.revision,
        local,
        await read_fleet(client, dict.fromkeys(changed)),
        root=project.root,
        offline=context.offline_folder(),
        sample=sample,
    )


def sample_settings(
    context: CommandContext, loaded: LoadedProject, rows: int
) -> SampleSettings | None:
    """Return how a plan looks at rows; None when *rows* is 0."""
    places = {
        key: (file, 0 if file.endswith(".toml") else loaded.lines.get(key, 0))
        for key, file in loaded.files.items()
    }
    if not rows:
        return None
    return SampleSettings(
        rows=rows,
        root=context.required_project().root,
        offline=context.offline_folder(),
        connection=context.required_environment().connection,
        places=places,
    )


async def usable_definitions(context: CommandContext) -> ProjectDefinitions:
    """Return what training and ingest use: the files, with applied texts where layout differs.

    Without a registry that answers, the files alone are used: nothing may be applied there yet.
    """
    local = await load_definitions(context)
    try:
        async with clients.open_registry(context) as client:
            newest = await client.get_project(local.name)
    except (NotReachableError, RegistryUnavailableError):
        return local
    applied = None if newest is None else parse_definitions(newest.definitions)
    return with_applied_texts(applied, local)


async def revision_definitions(
    client: RegistryClient, name: str, revision: int
) -> ProjectDefinitions:
    """Return the definitions of an applied revision; 0 means the newest. OperatorError if none."""
    found = await client.get_project(name, revision)
    if found is None:
        wanted = f"revision {revision}" if revision else "applied revision"
        raise OperatorError(
            f"project {name!r} has no {wanted} there; `turnout project history` lists them"
        )
    return parse_definitions(found.definitions)


def revision_json(revision: ProjectRevision) -> Mapping[str, Any]:
    """Return a revision as JSON values, without its definitions."""
    return {name: value for name, value in asdict(revision).items() if name != "definitions"}


async def apply_plan(context: CommandContext, plan: Plan, reason: str) -> ProjectRevision:
    """Write the plan as the next revision.

    Raises RevisionConflictError when another one was applied since the plan was made.
    """
    root = context.required_project().root
    commit = commit_of(root)
    known = commit != "unknown"
    async with clients.open_registry(context) as client:
        return await client.apply_project(
            plan.definitions.name,
            expected_revision=plan.expected_revision,
            plan_digest=plan.digest,
            definitions=plan.definitions.json,
            effects=plan.effect_texts(),
            commit=commit.rstrip("+") if known else "",
            dirty=known and bool(uncommitted_files(root)),
            reason=reason,
        )
