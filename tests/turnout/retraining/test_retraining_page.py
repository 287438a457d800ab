"""docs/retraining.md shows what works: schedules, commands, exit codes, and other schedulers."""

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from registry.schedules.schedule import KEYS, parse_schedule
from turnout.__main__ import make_app
from turnout.errors import ExitCode

PAGE = (Path(__file__).parents[3] / "docs" / "retraining.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    """Return the blocks of the page that are fenced as *kind*."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_schedules_of_the_page_can_be_read() -> None:
    """Together they show every key, and the table explains each."""
    (text,) = blocks("toml")
    schedules = {name: parse_schedule(name, table) for name, table in tomllib.loads(text).items()}
    shown = {key for schedule in schedules.values() for key in schedule.definition()}
    assert shown == set(KEYS)
    assert {key for key in KEYS if f"`{key}`" in PAGE} == set(KEYS)


def argo_command() -> list[str]:
    """Return the command line of the page's workflow."""
    (text,) = blocks("json")
    workflow: dict[str, Any] = json.loads(text)
    assert workflow["kind"] == "CronWorkflow"
    template = workflow["spec"]["workflowSpec"]["templates"][0]
    assert template["name"] == workflow["spec"]["workflowSpec"]["entrypoint"]
    command: list[str] = template["container"]["command"] + template["container"]["args"]
    return command


def airflow_command() -> list[str]:
    """Return the command line of the page's operator."""
    (text,) = (block for block in blocks("python") if "airflow" in block)
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    (operator,) = [call for call in calls if getattr(call.func, "id", "") == "BashOperator"]
    (command,) = [item.value for item in operator.keywords if item.arg == "bash_command"]
    return shlex.split(str(ast.literal_eval(command)))


def cron_command() -> list[str]:
    """Return the command line of the page's crontab, whose percent signs have a backslash."""
    (line,) = blocks("crontab")
    assert "%" not in line.replace("\\%", "")
    assert len(line.split()[:5]) == 5
    return shlex.split(line[line.index("turnout train") :])


def command_lines() -> Iterator[list[str]]:
    """Yield every command of the page."""
    for block in blocks("sh"):
        for line in block.splitlines():
            yield shlex.split(line, comments=True)
    yield from (argo_command(), airflow_command(), cron_command())


@pytest.mark.parametrize("line", list(command_lines()), ids=lambda line: " ".join(line[:4]))
def test_command_of_the_page_is_one(line: list[str]) -> None:
    """Each word names a command, and each option is one of it or of all commands."""
    root: Any = typer.main.get_command(make_app())
    command = root
    assert line[0] == "turnout"
    words = line[1:]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    options = {
        option
        for item in (*command.params, *root.params)
        for option in (*item.opts, *item.secondary_opts)
    }
    named = {word for word in words if word.startswith("--")}
    assert named <= options
    assert "train" not in line or "--run-key" in named


def test_page_has_every_exit_code() -> None:
    """A scheduler decides by them."""
    table = PAGE[PAGE.index("| exit code |") :]
    rows = re.findall(r"^\| (\d) \| ", table, re.MULTILINE)
    assert [int(row) for row in rows] == sorted(ExitCode)
