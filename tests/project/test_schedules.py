"""Tests of schedules.toml: what is read, what is wrong in which line, and what a plan says."""

import re
from pathlib import Path

import pytest

from project.definitions import ProjectDefinitions, parse_definitions
from project.errors import Problem
from project.plan.differences import changes_between
from project.schedules import read_schedules
from tests.project.project_files import loaded, write_project

WEEKLY = '[weekly]\nmodel = "churn"\ncron = "0 4 * * 1"\nzone = "Europe/Berlin"\n'
RECIPES = {"churn/candidate": {"model": "churn", "setting": "candidate", "labels": "churned"}}
VIEWS = {"usage": "a view"}


def read(root: Path, text: str) -> tuple[ProjectDefinitions, list[Problem]]:
    """Return definitions with the schedules of a file of this text, and what is wrong in it."""
    project = write_project(root, {"schedules.toml": text})
    schedules, _, problems = read_schedules(project, RECIPES, VIEWS)
    return ProjectDefinitions(name="shop", schedules=schedules), problems


@pytest.mark.walk
def test_schedules_of_a_project_are_loaded_and_it_keeps_its_digest_without(tmp_path: Path) -> None:
    """The setting is that of the model's only recipe. A line is known for each schedule."""
    without = loaded(tmp_path / "a").required()
    assert b"schedules" not in without.json
    found = loaded(tmp_path / "b", {"schedules.toml": f"# when\n{WEEKLY}"})
    definitions = found.required()
    assert definitions.schedules["weekly"] == {
        "model": "churn",
        "setting": "candidate",
        "cron": "0 4 * * 1",
        "zone": "Europe/Berlin",
    }
    assert found.files["schedules", "weekly"] == "schedules.toml"
    assert found.lines["schedules", "weekly"] == 2
    assert parse_definitions(definitions.json) == definitions
    broken = loaded(tmp_path / "c", {"schedules.toml": WEEKLY.replace("* 1", "* 9")})
    assert [(problem.file, problem.line) for problem in broken.problems] == [("schedules.toml", 3)]
    assert broken.definitions.views


def test_plan_names_added_changed_and_removed_schedules(tmp_path: Path) -> None:
    """With what differs, as for every other section."""
    before = ProjectDefinitions(name="shop")
    local, _ = read(tmp_path / "a", WEEKLY)
    (added,) = changes_between(before, local)
    assert (added.section, added.name, added.kind) == ("schedules", "weekly", "added")
    later, _ = read(tmp_path / "b", WEEKLY.replace("0 4", "0 5"))
    (changed,) = changes_between(local, later)
    assert (changed.kind, changed.impact) == ("changed", "value")
    assert changed.details == ("cron: 0 4 * * 1 -> 0 5 * * 1",)
    (removed,) = changes_between(local, before)
    assert (removed.section, removed.kind) == ("schedules", "removed")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (WEEKLY.replace("* 1", "* 9"), 3, "cannot be read: Bad day-of-week"),
        (WEEKLY.replace("Berlin", "Atlantis"), 4, "is no time zone"),
        (WEEKLY + 'cooldown = "1d"\n', 5, "cooldown is not known"),
        ("\n" + WEEKLY.replace('"churn"', '"chrun"'), 3, "no recipe; models with one are churn"),
        (WEEKLY + 'setting = "large"\n', 5, "is no recipe of 'churn'; there are candidate"),
        (WEEKLY + 'after_view = "calls"\n', 5, "is no view; there are usage"),
        (WEEKLY + "new_labels = 0.5\n", 5, "must be a whole number"),
        (WEEKLY + "[weekly.budget]\nruns = true\n", 1, "budget.runs = True"),
        ('weekly = "churn"\n', 0, "must be a table"),
        ("[weekly\n", 0, "Expected ']'"),
    ],
)
def test_wrong_value_is_named_with_its_line(
    text: str, line: int, words: str, tmp_path: Path
) -> None:
    """The sentence names the schedule and says what may stand there."""
    _, (problem,) = read(tmp_path, text)
    assert (problem.file, problem.line) == ("schedules.toml", line)
    assert re.search(words, problem.text), problem.text


def test_wrong_schedule_hides_no_other(tmp_path: Path) -> None:
    """Each table is read by itself."""
    definitions, problems = read(tmp_path, f'[never]\nmodel = "churn"\n{WEEKLY}')
    assert list(definitions.schedules) == ["weekly"]
    assert [problem.line for problem in problems] == [1]


def test_schedules_file_must_lie_in_the_project(tmp_path: Path) -> None:
    """A revision holds all that it depends on."""
    (tmp_path / "elsewhere.toml").write_text(WEEKLY)
    project = write_project(tmp_path / "shop")
    (project.root / "schedules.toml").symlink_to(tmp_path / "elsewhere.toml")
    _, _, (problem,) = read_schedules(project, RECIPES, VIEWS)
    assert "symbolic link out of the project" in problem.text
