"""The schedules of a project: `schedules.toml` at its root, a table for each schedule.

registry/schedules/schedule.py says what a table has, and checks it here and in the registry.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from project.errors import Problem, ProjectError
from project.folder import ProjectFolder, read_toml
from registry.schedules.schedule import Schedule, ScheduleError, parse_schedule

FILE = "schedules.toml"


def read_schedules(
    project: ProjectFolder, recipes: Mapping[str, Mapping[str, Any]], views: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], dict[tuple[str, str], int], list[Problem]]:
    """Return schedule -> its definition, ("schedules", name) -> its line, and what is wrong.

    recipes, views  the sections of the project's definitions, which schedules name.
    """
    # Most projects have no such file.
    path = project.root / FILE
    if not path.exists() and not path.is_symlink():
        return {}, {}, []
    if not path.resolve().is_relative_to(project.root):
        text = "this is a symbolic link out of the project; copy the file into it"
        return {}, {}, [Problem(FILE, 0, text)]
    try:
        tables = read_toml(path, FILE)
    except ProjectError as error:
        return {}, {}, [Problem(FILE, 0, str(error).removeprefix(f"{FILE}: "))]
    # Each table by itself, so that one that is wrong does not hide the others.
    lines = path.read_text(encoding="utf-8").splitlines()
    found: dict[str, dict[str, Any]] = {}
    places: dict[tuple[str, str], int] = {}
    problems: list[Problem] = []
    for name, table in tables.items():
        try:
            schedule = _with_recipe(parse_schedule(name, table), recipes, views)
        except ScheduleError as error:
            problems.append(Problem(FILE, _line(lines, name, str(error)), str(error)))
        else:
            found[name] = schedule.definition()
            places["schedules", name] = _line(lines, name)
    return found, places, problems


def _with_recipe(
    schedule: Schedule, recipes: Mapping[str, Mapping[str, Any]], views: Mapping[str, Any]
) -> Schedule:
    """Return the schedule with the setting of its recipe. Raises ScheduleError if it has none."""
    # The recipe: its setting may be left out when there is one.
    named = f"schedule {schedule.name!r}"
    settings = {
        str(recipe["setting"]): recipe
        for recipe in recipes.values()
        if recipe["model"] == schedule.model
    }
    if not settings:
        known = ", ".join(sorted({str(recipe["model"]) for recipe in recipes.values()})) or "none"
        raise ScheduleError(
            f"{named}: model = {schedule.model!r} has no recipe; models with one are {known}"
        )
    setting = schedule.setting or (next(iter(settings)) if len(settings) == 1 else "")
    if setting not in settings:
        raise ScheduleError(
            f"{named}: setting = {schedule.setting!r} is no recipe of {schedule.model!r}; there "
            f"are {', '.join(sorted(settings))}"
        )
    # What makes it due must be there.
    if schedule.after_view and schedule.after_view not in views:
        raise ScheduleError(
            f"{named}: after_view = {schedule.after_view!r} is no view; there are "
            f"{', '.join(sorted(views)) or 'none'}"
        )
    if schedule.new_labels and settings[setting]["labels"] is None:
        raise ScheduleError(
            f"{named}: new_labels counts labels, and recipe {schedule.model}/{setting} names none"
        )
    return replace(schedule, setting=setting)


def _line(lines: list[str], name: str, problem: str = "") -> int:
    """Return the line of the key that a problem begins with, or of the table; 0 without one."""
    header = re.compile(rf"\s*\[\s*[\"']?{re.escape(name)}[\"']?\s*[\].]")
    start = next((number for number, line in enumerate(lines, 1) if header.match(line)), 0)
    key = re.match(r"schedule '[^']*': '?(\w+)", problem)
    if not start or key is None:
        return start
    for number, line in enumerate(lines[start:], start + 1):
        if line.lstrip().startswith("["):
            return start
        if re.match(rf"\s*{re.escape(key[1])}\s*[=.]", line):
            return number
    return start
