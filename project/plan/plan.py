"""A plan: everything that an apply would change in one environment, and what it touches."""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from features.canonical import canonical_json, sha256_hex
from project.definitions import NOUNS, ProjectDefinitions
from project.errors import Problem
from project.plan.cost import BackfillCost, backfill_costs
from project.plan.differences import changes_between, with_applied_texts
from project.plan.effects import Effect, PlannedChange, with_effects
from project.plan.fleet import FleetSnapshot
from project.plan.sample import SampledView, SampleSettings, sample_views

FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """A comparison of a project with one environment."""

    environment: str
    expected_revision: int
    """The applied revision that was compared with; 0: none."""
    definitions: ProjectDefinitions
    """What an apply writes: those of the files, with applied texts where only layout differs."""
    changes: tuple[PlannedChange, ...]
    costs: tuple[BackfillCost, ...]
    samples: tuple[SampledView, ...] = ()
    """What the rows of added and changed views are like."""
    problems: tuple[Problem, ...] = ()
    """Sources that cannot be read. Nothing is applied as long as there is one."""

    @property
    def is_empty(self) -> bool:
        """Whether an apply would change nothing."""
        return not self.changes

    @property
    def blocking(self) -> tuple[Effect, ...]:
        """The effects because of which the registry would refuse the apply."""
        return tuple(effect for item in self.changes for effect in item.effects if effect.blocking)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of what is applied and what it touches.

        Costs and samples are no part of it: they depend on the rows of the moment.
        """
        return sha256_hex(
            canonical_json(
                {
                    "format": FORMAT,
                    "environment": self.environment,
                    "expected_revision": self.expected_revision,
                    "definitions": self.definitions.digest,
                    "changes": self._changes_json(),
                }
            )
        )

    def effect_texts(self) -> list[str]:
        """Return a sentence for each change and effect, for the history."""
        texts = []
        for item in self.changes:
            change = item.change
            impact = f" ({change.impact})" if change.impact else ""
            texts.append(f"{NOUNS[change.section]} {change.name} {change.kind}{impact}")
            texts += [effect.text for effect in item.effects]
        return texts

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values, for --json and --out."""
        return {
            "format": FORMAT,
            "project": self.definitions.name,
            "environment": self.environment,
            "expected_revision": self.expected_revision,
            "definitions_digest": self.definitions.digest,
            "plan_digest": self.digest,
            "changes": self._changes_json(),
            "costs": [
                {**asdict(cost), "store_bytes_max": cost.store_bytes_max} for cost in self.costs
            ],
            "samples": [asdict(item) for item in self.samples],
            "problems": [asdict(item) for item in self.problems],
        }

    def _changes_json(self) -> list[dict[str, Any]]:
        return [
            {
                **asdict(item.change),
                "effects": [asdict(effect) for effect in item.effects],
            }
            for item in self.changes
        ]


def make_plan(
    environment: str,
    applied: ProjectDefinitions | None,
    revision: int,
    local: ProjectDefinitions,
    fleet: FleetSnapshot,
    *,
    root: Path,
    offline: Path,
    sample: SampleSettings | None = None,
) -> Plan:
    """Compare *local* with the *applied* definitions of *revision*, and look up what it touches.

    applied  None when nothing is applied yet; then *revision* is 0.
    root     the project's folder.
    offline  folder of the offline store, for the cost of new editions.
    sample   how rows of added and changed views are looked at; None: they are not.
    """
    target = with_applied_texts(applied, local)
    planned = tuple(
        with_effects(change, applied, target, fleet) for change in changes_between(applied, local)
    )
    # Each new edition of a view is filled anew.
    editions = [
        (target.view(item.change.name), item.change.old_hash)
        for item in planned
        if item.change.section == "views"
        and item.change.new_hash
        and item.change.new_hash != item.change.old_hash
    ]
    costs = backfill_costs(editions, root, offline)
    # Rows are looked at last, because that takes longest.
    changes = [item.change for item in planned]
    samples, problems = (
        ((), ()) if sample is None else sample_views(changes, applied, target, sample)
    )
    return Plan(environment, revision, target, planned, costs, samples, problems)
