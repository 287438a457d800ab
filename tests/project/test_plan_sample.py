"""Tests of a plan that looks at the rows of its views."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from features.ingest.load import ingest
from features.offline import OfflineStore
from features.source import Source
from features.views import Feature, View
from project.definitions import ProjectDefinitions
from project.errors import ProjectError
from project.plan.fleet import FleetSnapshot
from project.plan.markdown import plan_markdown
from project.plan.plan import Plan, make_plan
from project.plan.sample import SampleSettings
from tests.project.project_files import USAGE_ROWS, write_rows
from tests.project.small_plans import USAGE, definitions
from tests.turnout.views.test_plan_view import rendered
from turnout.views.plan_view import plan_tables

PLAN = Feature(name="plan", dtype="category", dictionary=("basic",))
CHANGED = replace(
    USAGE,
    features=(replace(USAGE.features[0], bounds=(0.0, 14.0)), USAGE.features[1], PLAN),
    transform="SELECT customer, event_time_ms, minutes, topups, plan FROM source",
)
WITH_PLAN = USAGE_ROWS.replace("FROM", ", CASE WHEN i % 2 = 0 THEN 'a | b' END AS plan FROM")


def no_connection(name: str) -> str:
    """Stand for an environment whose secrets cannot be read."""
    raise ProjectError(f"dsn of [sources.{name}] cannot be read")


def planned(root: Path, view: View, **changes: Any) -> Plan:  # noqa: ANN401  of SampleSettings
    """Compare a project with *view* with one with USAGE, and look at the rows below *root*."""
    settings = SampleSettings(
        **{
            "rows": 1_000,
            "root": root,
            "offline": root / "off",
            "connection": no_connection,
            "places": {("views", "usage"): ("views/usage.py", 4)},
            **changes,
        }
    )
    local: ProjectDefinitions = definitions(view)
    return make_plan(
        "dev",
        definitions(),
        3,
        local,
        FleetSnapshot(),
        root=root,
        offline=root / "off",
        sample=settings,
    )


def test_plan_shows_what_the_rows_are_like_beside_the_last_ingest(tmp_path: Path) -> None:
    """Terminal, Markdown and JSON have equal numbers."""
    write_rows(tmp_path, WITH_PLAN, "usage.parquet")
    ingest(USAGE, OfflineStore(tmp_path / "off"), root=tmp_path, created_ms=0)
    made = planned(tmp_path, CHANGED)
    (found,) = made.samples
    assert found.last is not None
    assert found.feature_rows == [
        ("usage.minutes", "25.0% (0.0%)", "-", "5", "-"),
        ("usage.plan", "50.0%", "50.0%: 'a | b'", "-", "-"),
    ]
    screen, page = rendered(*plan_tables(made)), plan_markdown(made)
    for text in (screen, page):
        assert "usage: 20 rows of the source gave 20 from 20" in text
        assert "beside 20 of the last ingest" in text
    assert "| usage.plan | 50.0% | 50.0%: 'a \\| b' | - | - |" in page
    assert "usage.minutes" in screen
    value = made.to_json()["samples"][0]
    assert value["sample"]["features"][0]["out_of_bounds"] == 5
    assert value["last"]["missing"] == {"minutes": 0.0, "topups": 0.0}


def test_plan_has_the_same_digest_whatever_the_rows_are(tmp_path: Path) -> None:
    """An apply may run where the source cannot be reached, and rows come all the time."""
    broken = planned(tmp_path, CHANGED)
    write_rows(tmp_path, WITH_PLAN, "usage.parquet")
    assert planned(tmp_path, CHANGED).digest == broken.digest
    (problem,) = broken.problems
    assert str(problem).startswith("views/usage.py:4: view 'usage' over usage.parquet: no file ")
    assert "--sample 0" in problem.text
    page = plan_markdown(broken)
    assert f"- {problem}" in page
    assert "problem: views/usage.py:4:" in rendered(*plan_tables(broken))


def test_plan_names_the_file_of_a_source_whose_address_is_not_known(tmp_path: Path) -> None:
    """The environment's error does not end the plan of the other views."""
    table = Source.table("usage", time="at", connection="billing")
    (problem,) = planned(tmp_path, replace(CHANGED, source=table)).problems
    assert (problem.file, problem.line) == ("views/usage.py", 4)
    assert "[sources.billing] cannot be read" in problem.text


def test_plan_says_which_rows_it_does_not_look_at(tmp_path: Path) -> None:
    """Frames are given when rows are ingested, and pushed views have no source."""
    frame = planned(tmp_path, replace(CHANGED, source=Source.frame(time="at")))
    assert frame.samples[0].texts == [
        "usage: no rows were looked at: its source is a frame, which is given when rows are "
        "ingested"
    ]
    pushed = planned(tmp_path, replace(CHANGED, source=None))
    assert "declares no source" in pushed.samples[0].texts[0]
    assert (frame.problems, pushed.problems) == ((), ())
    # Neither another layout nor --sample 0 opens a source.
    laid_out = replace(USAGE, transform=USAGE.transform.lower())
    for made in (planned(tmp_path, laid_out), planned(tmp_path, CHANGED, rows=0)):
        assert (made.samples, made.problems) == ((), ())
