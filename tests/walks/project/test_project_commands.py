"""A project outside the repository: init, plan, apply, history, rollback on a running system."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from features.contract import ModelContract, ViewUse
from features.views import View
from tests.features.ingest.postgres_server import postgres_server
from tests.project.project_files import FILES, USAGE, USAGE_ROWS, write_rows
from tests.tiny_models import tiny_files
from tests.walks.running_system import TURNOUT, RunningSystem, turnout_up

pytestmark = pytest.mark.walk


OTHER_CALLS = """
from labels.churned import churned
from turnout.define import Learner, Recipe, RequestInput

candidate = Recipe(
    model="reader",
    setting="candidate",
    features=(),
    entities=("customer",),
    inputs=(RequestInput(name="amount"),),
    label="score",
    labels=churned,
    learner=Learner(kind="boosting"),
)
"""
"""A recipe of the model that the walk registers, which callers would have to send an amount."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """One running system."""
    with turnout_up(tmp_path_factory.mktemp("system") / ".turnout") as running:
        yield running


class Project:
    """A project's folder, and the commands in it."""

    def __init__(self, root: Path, system: RunningSystem, name: str) -> None:
        self.root = root
        self.system = system
        files = {**FILES, "turnout.toml": f'[project]\nname = "{name}"\nformat = 1\n'}
        for file, text in files.items():
            self.write(file, text)
        write_rows(root)

    def write(self, file: str, text: str) -> None:
        """Write one file of the project."""
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, *line: str, exit_code: int = 0) -> Any:  # noqa: ANN401  any JSON
        """Run one command with --json on the system; return its JSON or its error in one line."""
        value = self.system.turnout(*line, "--project", str(self.root), exit_code=exit_code)
        return " ".join(value.split()) if isinstance(value, str) else value


def test_init_plan_apply_history_and_rollback(
    system: RunningSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From nothing to a rollback, as a user does it."""
    monkeypatch.chdir(tmp_path)
    # A new project has nothing to apply.
    system.turnout("init", "walk")
    project = Project(tmp_path / "walk", system, "walk")
    for file in (*FILES,):
        if file not in ("turnout.toml", "environments/dev.toml"):
            (project.root / file).unlink()
    assert project.run("plan")["changes"] == []
    # Its first files are additions, and the exit code says that there is something to do.
    for file in ("views/usage.py", "policies/careful.toml"):
        project.write(file, FILES[file])
    planned = project.run("plan", exit_code=1)
    assert [(item["section"], item["kind"]) for item in planned["changes"]] == [
        ("views", "added"),
        ("policies", "added"),
    ]
    assert "accept it with --yes" in project.run("apply", "--reason", "first", exit_code=1)
    applied = project.run("apply", "--yes", "--reason", "first")
    assert (applied["applied"], applied["revision"], applied["author"]) == (True, 1, "sam")
    assert project.run("plan")["changes"] == []
    assert project.run("apply", "--yes", "--reason", "next")["applied"] is False
    # A change makes a second revision, and a rollback a third one with the first definitions.
    project.write("views/usage.py", USAGE.replace("default=1.0", "default=0.0"))
    (change,) = project.run("project", "diff")
    assert change["details"] == ["default of topups: 1 -> 0"]
    project.run("apply", "--yes", "--reason", "next")
    project.run("project", "rollback", "1", "--yes")
    history = project.run("project", "history")
    assert [item["revision"] for item in history] == [3, 2, 1]
    assert history[0]["digest"] == history[2]["digest"]
    assert history[0]["reason"] == "rollback to revision 1"
    assert project.run("project", "diff", "1", "3") == []
    assert history[2]["effects"][0] == "view usage added"


def _register_reader(system: RunningSystem, tmp_path: Path, text: str) -> None:
    """Register a version of the model `reader` that reads the view `usage` in *text*."""
    namespace: dict[str, Any] = {}
    exec(text, namespace)
    view: View = namespace["usage"]
    contract = ModelContract(
        entities=("customer",), views=(ViewUse(view=view, features=("minutes", "topups")),)
    )
    folder = tmp_path / "version"
    folder.mkdir()
    for name, content in tiny_files(contract=contract).items():
        (folder / name).write_bytes(content)
    system.turnout("versions", "register", "reader", str(folder), actor="dana")


def test_plan_names_the_version_that_reads_a_changed_view(
    system: RunningSystem, tmp_path: Path
) -> None:
    """The registry read the view's hash from the version's contract."""
    project = Project(tmp_path, system, "versions")
    renamed = USAGE.replace('"usage"', '"calls"')
    project.write("views/usage.py", renamed)
    for file in ("recipes/churn.py", "labels/churned.py", "models/churn.toml"):
        (tmp_path / file).unlink()
    (tmp_path / "policies/careful.toml").unlink()
    project.run("apply", "--yes", "--reason", "next")
    _register_reader(system, tmp_path, renamed)
    # Another default touches exactly this version; another layout touches none.
    project.write("views/usage.py", renamed.replace("default=1.0", "default=2.0"))
    planned = project.run("plan", exit_code=1)
    (change,) = planned["changes"]
    assert [effect["name"] for effect in change["effects"]] == ["reader 1"]
    project.write("views/usage.py", renamed.replace("SELECT customer, ", "select  customer,\\n"))
    planned = project.run("plan", exit_code=1)
    assert [item["impact"] for item in planned["changes"]] == ["formatting"]
    assert planned["changes"][0]["effects"] == []
    # An apply notes the layout, and then there is nothing to do.
    assert project.run("apply", "--yes", "--reason", "layout")["effects"] == [
        "view calls changed (formatting)"
    ]
    assert project.run("plan")["changes"] == []
    # A plan file of another moment is refused, and says what has changed.
    plan_file = tmp_path / "plan.json"
    project.run("plan", "--out", str(plan_file))
    project.write("views/usage.py", renamed.replace("86_400_000", "1_000"))
    error = project.run("apply", str(plan_file), "--reason", "stale", exit_code=1)
    assert "what differs: the project's files, the changes and" in " ".join(error.split())
    project.run("plan", "--out", str(plan_file), exit_code=1)
    assert project.run("apply", str(plan_file), "--reason", "planned")["revision"] == 3
    # The view cannot go while a version that may run reads it.
    system.turnout(
        "versions", "approve", "reader", "1", "--policy", "initial", "--reason", "ok", "--yes"
    )
    system.turnout("splits", "preload", "reader", "1")
    # A recipe whose versions need other calls than the version in production breaks callers.
    system.turnout("splits", "set", "reader", "--production", "1", "--reason", "first")
    labels = FILES["labels/churned.py"].replace("value=", 'inputs=("amount",),\n    value=')
    project.write("labels/churned.py", labels)
    project.write("recipes/churn.py", OTHER_CALLS)
    recipe = project.run("plan", exit_code=1)["changes"][1]
    assert (recipe["name"], recipe["impact"]) == ("reader/candidate", "breaking")
    (effect,) = recipe["effects"]
    assert effect["kind"] == "callers"
    assert (
        "reader 1 (production) takes keys: customer; inputs: none; outputs: score;"
        in (effect["text"])
    )
    assert "would take keys: customer; inputs: amount (a number); outputs: score" in effect["text"]
    for file in ("recipes/churn.py", "labels/churned.py"):
        (tmp_path / file).unlink()
    project.write("views/usage.py", "")
    removed = project.run("plan", exit_code=1)
    assert removed["changes"][0]["impact"] == "breaking"
    error = project.run("apply", "--yes", "--reason", "away", exit_code=1)
    assert "the registry would refuse this: reader 1 (production) reads calls" in error


def test_plan_looks_at_a_sample_of_the_rows(system: RunningSystem, tmp_path: Path) -> None:
    """What the rows are like stands in the plan; a source that cannot be read is an error."""
    project = Project(tmp_path, system, "sampled")
    for file in ("recipes/churn.py", "labels/churned.py", "models/churn.toml"):
        (tmp_path / file).unlink()
    (tmp_path / "policies/careful.toml").unlink()
    view = (
        USAGE.replace('"usage"', '"sampled"')
        .replace('Feature(name="minutes")', 'Feature(name="minutes", bounds=(0.0, 9.0))')
        .replace('time="at"', 'time="at", created="at"')
        .replace("event_time_ms,", "event_time_ms, created_ms,")
    )
    project.write("views/usage.py", view)
    planned = project.run("plan", exit_code=1)
    (found,) = planned["samples"]
    assert (found["view"], found["sample"]["rows"], found["last"]) == ("sampled", 20, None)
    (minutes, topups) = found["sample"]["features"]
    assert (minutes["missing"], minutes["out_of_bounds"], topups["missing"]) == (10, 10, 0)
    project.run("apply", "--yes", "--reason", "first")
    # After an ingest the shares stand beside those of the last rows.
    project.run("features", "ingest", "sampled")
    project.write("views/usage.py", view.replace("9.0", "4.0"))
    (found,) = project.run("plan", exit_code=1)["samples"]
    assert found["last"]["missing"] == {"minutes": 0.5, "topups": 0.0}
    assert found["sample"]["features"][0]["missing"] == 15
    # A source without the column, or without a zone, is named with file and line.
    for sql, text in (
        (USAGE_ROWS.replace("minutes", "seconds"), "minutes"),
        (USAGE_ROWS.replace("now()", "now()::TIMESTAMP"), "declare the zone of the source"),
    ):
        write_rows(tmp_path, sql)
        planned = project.run("plan", exit_code=1)
        (problem,) = planned["problems"]
        assert (problem["file"], problem["line"]) == ("views/usage.py", 4)
        assert text in problem["text"]
        refused = project.run("apply", "--yes", "--reason", "bad", exit_code=1)
        assert "views/usage.py:4: view 'sampled' over data/usage.parquet" in refused
    # Without the source a plan and an apply need --sample 0.
    assert project.run("plan", "--sample", "0", exit_code=1)["problems"] == []
    assert project.run("apply", "--yes", "--sample", "0", "--reason", "blind")["revision"] == 2


def test_commands_outside_of_a_project_say_so(
    system: RunningSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names both ways out."""
    monkeypatch.chdir(tmp_path)
    error = system.turnout("plan", exit_code=1)
    assert "turnout init NAME" in error
    assert "--project" in error


def test_env_check_tries_every_part(system: RunningSystem, tmp_path: Path) -> None:
    """A running system passes; a wrong address is named, and the rest is tried all the same."""
    # A system that runs, and sources that have their columns.
    project = Project(tmp_path, system, "env")
    project.write("data/usage.csv", "customer,at,minutes,topups\n")
    for file in ("views/usage.py", "labels/churned.py"):
        text = FILES[file].replace("usage.parquet", "usage.csv")
        project.write(file, text.replace("churned.parquet", "usage.csv"))
    found = {item["part"]: item for item in project.run("env", "check")}
    parts = {"registry", "online store", "gateway", "offline store"}
    assert set(found) == parts | {"source of view usage", "source of churned"}
    assert all(item["passed"] for item in found.values())
    # A column, the gateway and the production rules are wrong.
    project.write("data/usage.csv", "customer,seen\n")
    project.write(
        "environments/prod.toml",
        f'mode = "production"\nregistry = "{system.addresses.registry}"\n'
        f'registry_certificate = "{system.addresses.certificate}"\ngateway = "127.0.0.1:1"\n',
    )
    checks = project.run("env", "check", "--env", "prod", exit_code=1)
    failed = {item["part"] for item in checks if not item["passed"]}
    sources = {"source of view usage", "source of churned"}
    assert failed == {"production rules", "gateway", "identities"} | sources
    texts = " ".join(item["text"] for item in checks)
    assert "in no git checkout" in texts
    assert "start it with --identities" in texts
    assert "data/usage.csv has no column 'at'; it has customer, seen" in texts
    # Who does not answer is not accused of taking changes of anybody.
    prod = project.root / "environments" / "prod.toml"
    prod.write_text(prod.read_text().replace(system.addresses.registry, "127.0.0.1:1"))
    checks = project.run("env", "check", "--env", "prod", exit_code=1)
    texts = " ".join(item["text"] for item in checks)
    assert "takes a change" not in texts
    assert "127.0.0.1:1 accepts no connection" in texts


TABLE = 'Source.table("usage", connection="billing", time="at", zone="UTC")'
DEV = 'mode = "development"\n\n[sources.billing]\ndsn = "{}"\n'


def test_table_of_a_database_is_checked_and_sampled(system: RunningSystem, tmp_path: Path) -> None:
    """A real PostgreSQL server: `env check` tries the table, and `plan` looks at its rows."""
    project = Project(tmp_path, system, "tables")
    for file in ("recipes/churn.py", "labels/churned.py", "models/churn.toml"):
        (tmp_path / file).unlink()
    view = USAGE.replace('"usage"', '"billed"', 1).replace(
        'Source.files("data/usage.parquet", time="at")', TABLE
    )
    project.write("views/usage.py", view)

    def check(*, passes: bool) -> str:
        """Return what was found about the source."""
        checks = project.run("env", "check", exit_code=0 if passes else 1)
        (found,) = [item for item in checks if item["part"] == "source of view billed"]
        assert found["passed"] is passes
        return str(found["text"])

    with postgres_server() as address:
        project.write("environments/dev.toml", DEV.format(address))
        assert "table 'usage' cannot be read: relation \"usage\" does not" in check(passes=False)
        with psycopg.connect(address) as database:
            database.execute(
                "CREATE TABLE usage AS SELECT 'C' || i AS customer, now()::timestamp AS at, "
                "1.5 AS minutes, 1 AS topups FROM generate_series(1, 30) AS i"
            )
        assert check(passes=True) == "usage has 4 columns"
        (found,) = project.run("plan", exit_code=1)["samples"]
        assert (found["sample"]["rows"], found["sample"]["future"]) == (30, 0)
        # A column that the table lacks, a connection that the environment lacks, a wrong address.
        columns = "it has customer, at, minutes, topups"
        project.write("views/usage.py", view.replace('time="at"', 'time="seen"'))
        assert check(passes=False) == f"usage has no column 'seen'; {columns}"
        project.write("views/usage.py", view.replace("billing", "bills"))
        assert "dev.toml has no [sources.bills]; there are: billing" in check(passes=False)
        project.write("views/usage.py", view)
        project.write("environments/dev.toml", DEV.format("postgresql://u:hidden@127.0.0.1:1/x"))
        assert "hidden" not in check(passes=False)
    # A server that is gone is named by both commands.
    project.write("environments/dev.toml", DEV.format(address))
    assert "table 'usage' cannot be read" in check(passes=False)
    (problem,) = project.run("plan", exit_code=1)["problems"]
    assert problem["text"].startswith("view 'billed' over usage: table 'usage' cannot be read")


def test_feature_that_gives_the_label_away_is_an_error(
    system: RunningSystem, tmp_path: Path
) -> None:
    """View and labels read one table, and the view has the outcome at the label's instant."""
    project = Project(tmp_path, system, "leaking")
    for file in ("views/usage.py", "labels/churned.py"):
        text = FILES[file].replace("churned.parquet", "usage.parquet")
        project.write(file, text.replace(" minutes, topups", " churned::INT AS minutes, topups"))
    (problem,) = project.run("project", "check", exit_code=1)["problems"]
    assert (problem["file"], problem["line"]) == ("recipes/churn.py", 6)
    assert "feature usage:minutes is made of column 'churned'" in problem["text"]
    assert "recipes/churn.py:6" in project.run("plan", exit_code=1)


def test_environment_gives_addresses_without_options(
    system: RunningSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder below the project, `turnout models` finds the system by dev.toml alone."""
    project = Project(tmp_path, system, "addresses")
    addresses = system.addresses
    project.write(
        "environments/dev.toml",
        f'registry = "{addresses.registry}"\nregistry_certificate = "{addresses.certificate}"\n',
    )
    monkeypatch.chdir(tmp_path / "views")
    command = [*TURNOUT, "models", "--json"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert isinstance(json.loads(finished.stdout), list)
