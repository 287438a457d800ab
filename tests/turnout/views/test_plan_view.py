"""A plan and revisions as people see them in a terminal."""

from dataclasses import replace

from rich.console import Console

from features.views import Feature
from project.plan.fleet import FleetSnapshot
from registry.types import ProjectRevision
from tests.project.small_plans import USAGE, definitions, plan, version
from turnout.views.plan_view import plan_tables, revisions_table


def rendered(*items: object) -> str:
    """Return what a wide terminal shows, without styles."""
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        for item in items:
            console.print(item)
    return capture.get()


def test_plan_tables_show_changes_effects_and_costs() -> None:
    """What the registry would refuse stands first."""
    changed = replace(USAGE, features=(USAGE.features[0], Feature(name="topups", default=0.0)))
    fleet = FleetSnapshot(versions=(version("7", USAGE, "production"),))
    made = plan(definitions(changed), fleet)
    text = rendered(*plan_tables(made))
    assert "view usage" in text
    assert "default of topups: 1 -> 0" in text
    assert "touches: churn 7 (production) reads edition" in text
    assert "not counted" in text
    assert f"plan {made.digest[:12]} for dev, compared with revision 3" in text
    refused = rendered(*plan_tables(plan(definitions(views={}, recipes={}), fleet)))
    assert "refused: churn 7 (production) reads usage" in refused
    assert "Nothing to do: revision 3" in rendered(*plan_tables(plan(definitions())))


def test_revisions_table_marks_a_changed_work_tree() -> None:
    """A plus behind the commit says that no commit has what was applied."""
    revision = ProjectRevision(
        name="shop",
        revision=4,
        digest="d" * 64,
        definitions=b"",
        plan_digest="p" * 64,
        effects=(),
        author="sam",
        commit="c" * 40,
        dirty=True,
        reason="new default",
        applied_unix_ms=1_790_000_000_000,
    )
    text = rendered(revisions_table([revision]))
    assert "cccccccccccc+" in text
    assert "new default" in text
    assert "sam" in text
