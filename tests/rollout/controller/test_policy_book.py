"""The policies of applied projects beside the controller's own."""

import asyncio
import json
import tomllib
from collections.abc import Mapping
from typing import Any

import pytest

from features.canonical import canonical_json, sha256_hex
from protos import rollout_pb2
from registry.types import ProjectRevision
from rollout.api.commands import RolloutCommands
from rollout.controller.policy_book import PolicyBook
from rollout.errors import UnknownRolloutError
from rollout.policy.policy import POLICIES
from rollout.policy.policy_files import parse_policies
from tests.registry.project_definitions import PLAN, definitions_of
from tests.rollout.scripted_parts import FakeRegistry
from tests.rollout.scripted_world import ScriptedWorld

CAREFUL = """
name = "careful"
base = "standard"
failure_bar = 0.002
watch_s = 60
weights = {errors = 0.25, schema = 0.1}
freeze = ["fri 16:00 - mon 07:00"]
shadow = false

[[canary]]
share_bp = 100
bake_s = 1800

[models.churn.outcome]
name = "churned"
at_most = 0
trusted_callers = ["crm", "bi"]
"""


def apply_to(
    registry: FakeRegistry,
    policies: Mapping[str, Mapping[str, Any]],
    models: Mapping[str, Mapping[str, Any]] | None = None,
    project: str = "shop",
) -> None:
    """Put a revision of a project with these policies into the registry."""
    content = definitions_of(project, policies=policies, models=models)
    before = registry.projects.get(project)
    registry.projects[project] = ProjectRevision(
        name=project,
        revision=1 if before is None else before.revision + 1,
        digest=sha256_hex(content),
        definitions=content,
        plan_digest=PLAN,
        effects=(),
        author="cleo",
        commit="",
        dirty=False,
        reason="as planned",
        applied_unix_ms=1,
    )


def refreshed_book(registry: FakeRegistry) -> PolicyBook:
    """Return a book after one refresh."""
    book = PolicyBook(POLICIES)
    asyncio.run(book.refresh(registry))
    return book


def test_policy_of_a_project_has_the_digest_of_its_file() -> None:
    """JSON has no order of keys and no 60.0, and the approvals of both must be the same."""
    tables = tomllib.loads(CAREFUL)
    registry = FakeRegistry()
    apply_to(registry, {"careful": json.loads(canonical_json(tables))})

    book = refreshed_book(registry)

    from_file = parse_policies(tables, "careful.toml", POLICIES)
    assert from_file.keys() == {"careful", "careful@churn"}
    for name, policy in from_file.items():
        assert book.policies[name].digest == policy.digest
        assert book.project_of(name) == "shop"
    assert book.project_of("standard") == ""


def test_wrong_policy_hides_no_other_and_says_what_is_wrong() -> None:
    """A name of the controller's own policies stays the controller's."""
    registry = FakeRegistry()
    good = {"base": "standard", "failure_bar": 0.002}
    wrong = {"base": "standard", "speed": 1}
    apply_to(registry, {"good": good, "wrong": wrong, "standard": good, "other": {"name": "x"}})

    book = refreshed_book(registry)

    assert book.policies["standard"] is POLICIES["standard"]
    assert book.policies["good"].failure_bar == 0.002
    assert book.policies.keys() == {*POLICIES, "good"}
    problems = {item.name: item.problem for item in book.unusable}
    assert problems.keys() == {"wrong", "standard", "other"}
    assert "'speed' is no field of a policy" in problems["wrong"]
    assert "choose another name" in problems["standard"]
    assert "it has the name 'x'" in problems["other"]
    assert {item.project for item in book.unusable} == {"shop"}


@pytest.mark.parametrize(
    "tables",
    [
        {"base": ["standard"]},
        {"base": "standard", "models": {"churn": 3}},
        {"base": "standard", "watch_s": 10**400},
        {"base": "standard", "canary": [[]]},
        {"base": "standard", "shadow": {"pairs_min": "many"}},
        {"base": "standard", "freeze": ["soon"]},
        {"base": "standard", "weights": {"errors": 7}},
        {"base": "standard", "outcome": {"name": "churned", "at_most": "0"}},
        {"name": 7},
    ],
)
def test_policy_that_nobody_can_read_stops_nothing(tables: Mapping[str, Any]) -> None:
    """The controller leads on, and the list says which policy is wrong."""
    registry = FakeRegistry()
    apply_to(registry, {"odd": tables, "good": {"base": "standard"}})

    book = refreshed_book(registry)

    assert book.policies.keys() == {*POLICIES, "good"}
    assert [item.name for item in book.unusable] == ["odd"]


def test_refresh_fetches_only_what_has_changed() -> None:
    """Policies that a later revision leaves out are gone."""
    registry = FakeRegistry()
    policy = {"base": "standard"}
    apply_to(registry, {"good": policy}, {"churn": {"default_policy": "good"}})
    apply_to(registry, {"other": policy}, project="crm")
    fetched: list[str] = []

    class CountingRegistry(FakeRegistry):
        async def get_project(self, name: str, revision: int = 0) -> ProjectRevision | None:
            fetched.append(name)
            return await super().get_project(name, revision)

    counting = CountingRegistry()
    counting.projects = registry.projects
    book = refreshed_book(counting)
    assert (sorted(fetched), book.defaults) == (["crm", "shop"], {"churn": "good"})
    apply_to(registry, {}, {"churn": {"default_policy": ""}})

    asyncio.run(book.refresh(counting))

    assert fetched[2:] == ["shop"]
    assert book.policies.keys() == {*POLICIES, "other"}
    assert book.defaults == {}


def test_rollout_without_a_policy_takes_the_default_of_its_model() -> None:
    """The project's default, else "standard"; a policy that is wrong is named with its problem."""

    async def walk() -> None:
        world = ScriptedWorld()
        commands = RolloutCommands(world.controller, world.registry, world.clock)  # type: ignore[arg-type]
        request = rollout_pb2.ForecastRequest(model="churn")
        with pytest.raises(UnknownRolloutError, match="no policy 'standard'"):
            await commands.forecast(request)
        policies = {"slow": {"base": "quick", "watch_s": 9}, "wrong": {"base": "quicker"}}
        apply_to(world.registry, policies, {"churn": {"default_policy": "slow"}})
        assert "slow" in (await commands.forecast(request)).text
        apply_to(world.registry, policies, {"churn": {"default_policy": "wrong"}})
        with pytest.raises(UnknownRolloutError, match=r"'wrong' that can be used: .* 'quicker' is"):
            await commands.forecast(request)

    asyncio.run(walk())


def test_running_rollout_says_that_its_policy_was_applied_anew() -> None:
    """It goes on under the approved edition."""

    async def walk() -> None:
        world = ScriptedWorld()
        apply_to(world.registry, {"slow": {"base": "quick", "watch_s": 9}})
        rollout = await world.start_rollout("slow")
        assert rollout.spec.policy.watch_s == 9
        apply_to(world.registry, {"slow": {"base": "quick", "watch_s": 8}})
        changed = (await world.controller.refresh_policies()).policies["slow"]
        assert rollout.spec.policy.watch_s == 9
        assert f"now another edition ({changed.digest[:12]})" in rollout.status().policy_note

    asyncio.run(walk())
