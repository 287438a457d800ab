"""Training runs through the commands: kept with their numbers, also when the trainer is killed."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.walks.running_system import (
    TURNOUT,
    RunningSystem,
    poll_system_until,
    turnout_up,
)

pytestmark = pytest.mark.walk

PAGE = Path(__file__).parents[3] / "docs" / "training.md"
ROWS = """
    SELECT printf('C%05d', range) AS customer_id, now()::TIMESTAMP - INTERVAL 1 DAY AS taken_at,
           (hash(range) % 100)::INTEGER AS minutes,
           minutes + (hash(range + 10000) % 100)::INTEGER > 100 AS churned
    FROM range(4000)"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """One running system."""
    with turnout_up(tmp_path_factory.mktemp("system") / ".turnout") as running:
        yield running


@pytest.fixture(scope="module")
def project(system: RunningSystem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of one table, whose rows are ingested, and whose recipe is applied."""
    folder = tmp_path_factory.mktemp("shop")
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({ROWS}) TO '{folder / 'customers.parquet'}' (FORMAT parquet)")
    words = ("--entity", "customer_id", "--time", "taken_at", "--label", "churned")
    table = ("--from", str(folder / "customers.parquet"))
    system.turnout("init", "shop", "--into", str(folder), *table, *words)
    run(system, folder, "apply", "--yes", "--reason", "first")
    run(system, folder, "features", "ingest", "customers")
    return folder


TRAIN = ("train", "churned", "--run-key", "nightly-1", "--cause", "schedule nightly")


@pytest.fixture(scope="module")
def first(system: RunningSystem, project: Path) -> Any:  # noqa: ANN401  any JSON
    """What the command said of the first training, which registered version 1."""
    return run(system, project, *TRAIN)


def run(system: RunningSystem, project: Path, *line: str, exit_code: int = 0) -> Any:  # noqa: ANN401
    """Run one command with --json for the project; return its JSON, or its error in one line."""
    value = system.turnout(*line, "--project", str(project), exit_code=exit_code)
    return " ".join(value.split()) if isinstance(value, str) else value


def test_runs_are_kept_shown_and_compared(
    first: Any,  # noqa: ANN401  any JSON
    system: RunningSystem,
    project: Path,
) -> None:
    """They make a version, keep a champion, and name what the key made before."""
    assert first["version"] == "1"
    # The same key trains no second time, and says what came of the first.
    again = run(system, project, *TRAIN)
    assert (again["version"], again["run"], again["ended_before"]) == ("1", first["run"], True)
    # The same recipe and rows again are not better than themselves.
    kept = run(system, project, "train", "churned", "--champion", "1", exit_code=4)
    assert (kept["state"], kept["version"], kept["next_step"]) == ("champion kept", None, None)
    assert kept["gain"]["low"] <= 0.0 <= kept["gain"]["high"]
    assert kept["decay"]["verdict"] == "unknown"
    assert kept["decay"]["unknown"].startswith("0 labels are newer than its own")

    # Other tests train as well.
    listed = {item["id"]: item for item in run(system, project, "runs", "list", "churned")}
    newest, oldest = listed[kept["run"]], listed[first["run"]]
    assert (oldest["state"], oldest["version"]) == ("registered", "1")
    assert (oldest["cause"], oldest["key"]) == ("schedule nightly", "nightly-1")
    assert (newest["state"], newest["cause"]) == ("champion kept", "by hand")
    shown = run(system, project, "runs", "show", newest["id"][:8])
    (gain,) = [check for check in shown["result"]["gate"] if check["name"] == "auc_gain"]
    assert (gain["passed"], gain["text"] in newest["error"]) == (False, True)
    assert (
        shown["inputs"]["champion"]
        == run(system, project, "runs", "show", first["run"])["version_digest"]
    )
    assert shown["result"]["memory_mb"] > 50
    assert {"labels", "judge the champion", "gate"} <= shown["result"]["seconds"].keys()
    assert shown["result"]["auc_gain"] == kept["gain"]
    # Two runs differ in what they were compared with and in what came of them.
    found = {
        item["field"]: (item["first"], item["second"])
        for item in run(system, project, "runs", "compare", first["run"], newest["id"])
    }
    assert found["state"] == ("registered", "champion kept")
    assert found["champion"][0] == ""
    assert "recipe_sha256" not in found
    # The log has the steps, a line each.
    logs = [*TURNOUT, "--folder", str(system.folder), "runs", "logs", newest["id"][:8], "-f"]
    lines = subprocess.run(logs, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line[9:] for line in lines[:2]] == ["labels", "judge the champion"]
    assert lines[2].startswith("The champion on the newest labels: not known, because 0 labels")
    assert "failed 1 of" in lines[-1]
    # The first run made a proposal, and the second kept the champion.
    proposals = run(system, project, "runs", "list", "--proposals")
    (proposal,) = [item for item in proposals if item["version"] == "1"]
    assert proposal["next_step"] == "turnout versions approve churned 1 --policy initial"
    assert (proposal["trigger"], proposal["champion"]) == ("schedule nightly", None)
    assert version_of(system, project)["proposal"] == proposal
    (model,) = run(system, project, "models")
    assert model["proposals"] == len(proposals)


def version_of(system: RunningSystem, project: Path) -> Any:  # noqa: ANN401  any JSON
    """What the list of versions says of version 1."""
    listed = run(system, project, "versions", "list", "churned")
    return next(item for item in listed if item["label"] == "1")


def killed_trainer(system: RunningSystem, project: Path, step: str, *line: str) -> None:
    """Start a trainer, and kill it with SIGKILL when it begins *step*."""
    trainer = subprocess.Popen(
        [*TURNOUT, "--folder", str(system.folder), "--as", "sam", "--project", str(project), *line],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert trainer.stderr is not None
    assert any(step in printed for printed in trainer.stderr)
    trainer.send_signal(signal.SIGKILL)
    trainer.wait()
    trainer.stderr.close()


@pytest.mark.usefixtures("first")
def test_killed_trainer_leaves_its_run_and_goes_on(system: RunningSystem, project: Path) -> None:
    """Until it is silent for long, the run is not taken over: a slow trainer may still live.

    Then the next attempt takes the steps that were finished, and registers one version.
    """
    line = ["train", "churned", "--champion", "none", "--run-key", "killed"]
    # It may have registered its version or not when it died.
    killed_trainer(system, project, "register", *line)
    refused = run(system, project, *line, exit_code=1)
    assert "of this key is running" in refused
    assert "turnout runs logs" in refused
    (killed,) = [item for item in run(system, project, "runs", "list") if item["key"] == "killed"]
    assert (killed["state"], killed["ended_unix_ms"], killed["version"]) == ("running", 0, "")

    # Its last sign of life is the time of its log.
    log = system.folder / "registry" / "runs" / f"{killed['id']}.log"
    os.utime(log, (log.stat().st_mtime - 300,) * 2)
    before = run(system, project, "versions", "list", "churned")
    again = run(system, project, *line)
    shown = run(system, project, "runs", "show", killed["id"])
    assert (shown["attempt"], shown["state"]) == (2, "registered")
    assert shown["begun_unix_ms"] == killed["begun_unix_ms"]
    assert shown["result"]["seconds"]["fit and convert"] < 0.1
    labels = {item["label"] for item in run(system, project, "versions", "list", "churned")}
    assert labels == {*(item["label"] for item in before), again["version"]}
    assert len(labels) <= len(before) + 1
    digests = [item["digest"] for item in run(system, project, "versions", "list", "churned")]
    assert digests.count(again["digest"]) == 1
    # Nothing of a run is left when it has ended.
    assert not list((system.folder / "steps").iterdir())


@pytest.mark.usefixtures("first")
def test_version_is_built_again_to_the_byte(system: RunningSystem, project: Path) -> None:
    """Also after rows were ingested, and when the work tree has another recipe."""
    (recipe,) = (project / "recipes").glob("*.py")
    text = recipe.read_text()
    recipe.write_text(text.replace('"max_iter": 100', '"max_iter": 20'))
    run(system, project, "features", "ingest", "customers")
    found = run(system, project, "train", "--verify", "churned/1")
    assert found["identical"]
    assert set(found["files"].values()) == {True}
    assert found["digest"] == version_of(system, project)["digest"]
    assert not found["graph"]
    recipe.write_text(text)
    # Usage has sentences of its own.
    assert "write MODEL/VERSION" in run(system, project, "train", "--verify", "x", exit_code=2)
    assert "name the model to train" in run(system, project, "train", exit_code=2)


@pytest.mark.usefixtures("first")
def test_version_of_other_labels_is_not_identical(system: RunningSystem, project: Path) -> None:
    """The input, the files, the node and the largest difference of a score are named."""
    with other_labels(project, "CASE WHEN range % 7 = 0 THEN NOT churned ELSE churned END"):
        found = run(system, project, "train", "--verify", "churned/1", exit_code=1)
    assert not found["identical"]
    assert [item["field"] for item in found["inputs"]] == ["labels_sha256"]
    assert (found["files"]["contract.json"], found["files"]["model.onnx"]) == (True, False)
    assert found["graph"][0]["kind"] == "node"
    assert "nodes_values" in found["graph"][0]["difference"]
    assert found["score_difference"] > 0.01
    assert "metrics.auc.value" in {item["field"] for item in found["card"]}


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(
    ("churned", "words"),
    [
        ("true", "all 4000 labels are True"),
        ("range IN (0, 1, 3)", "held-out rows of the rarest class; at least 5"),
        ("CASE WHEN range < 3 THEN 1.0 ELSE 'nan'::DOUBLE END", "all 3 labels are True"),
    ],
)
def test_bad_outcomes_end_the_run_in_words(
    churned: str, words: str, system: RunningSystem, project: Path
) -> None:
    """Nothing is registered, and the run has the sentence."""
    with other_labels(project, churned):
        check_failed_run(system, project, words)


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"customer_id": "'X' || customer_id"}, "ids in another format"),
        ({"customer_id": "printf('C%05d', range + 50000)"}, "rows of other entities"),
        ({"taken_at": "taken_at - INTERVAL 400 DAY"}, "rows known only after the label's instant"),
    ],
)
def test_labels_that_find_no_row_end_the_run_in_words(
    changes: dict[str, str], words: str, system: RunningSystem, project: Path
) -> None:
    """Unknown ids, and instants before any row."""
    with other_labels(project, "churned", **changes):
        check_failed_run(system, project, words)


def check_failed_run(system: RunningSystem, project: Path, words: str) -> None:
    """Train; the run fails with a sentence that has *words*, and no version is registered."""
    versions = run(system, project, "versions", "list", "churned")
    said = run(system, project, "train", "churned", "--champion", "none", exit_code=1)
    assert words in said
    assert "Traceback" not in said
    newest = run(system, project, "runs", "list", "churned", "--limit", "1")[0]
    assert newest["state"] in ("failed", "gate failed")
    assert words in " ".join(newest["error"].split())
    assert run(system, project, "versions", "list", "churned") == versions


@contextmanager
def other_labels(project: Path, churned: str, **changes: str) -> Iterator[None]:
    """Replace the table of the labels while the block lasts.

    churned  SQL of the outcome.
    changes  column -> SQL.
    """
    path = project / "customers.parquet"
    before = path.read_bytes()
    replaced = ", ".join(
        f"{sql} AS {name}" for name, sql in {"churned": churned, **changes}.items()
    )
    rows = ROWS.replace("SELECT", "SELECT range,", 1)
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT * EXCLUDE (range) REPLACE ({replaced}) FROM ({rows})) TO '{path}' "
            "(FORMAT parquet)"
        )
    try:
        yield
    finally:
        path.write_bytes(before)


@pytest.mark.usefixtures("first")
def test_labels_come_from_reported_outcomes(system: RunningSystem, project: Path) -> None:
    """The rows that were served become labels of the project, with what became of them."""
    system.approve("churned", "1", "initial")
    system.deploy("churned", "1")
    ids = [
        system.turnout("predict", "churned", f"C{number:05d}")["prediction_id"]
        for number in range(3)
    ]
    for prediction_id, value in ((ids[0], "1"), (ids[1], "1"), (ids[2], "0")):
        system.turnout("outcome", prediction_id, "churned", value)
    # The journal is written after the reply.
    line = [*TURNOUT, "--json", "--folder", str(system.folder), "--project", str(project)]
    line += ["labels", "from-outcomes", "churned", "--outcome", "churned"]

    def made() -> Any:  # noqa: ANN401  any JSON
        ended = subprocess.run(line, capture_output=True, text=True)
        found = json.loads(ended.stdout) if ended.returncode == 0 else {"labels": 0}
        return found if found["labels"] == 3 else None

    found = poll_system_until(made, 20.0, "three labels")
    assert (found["name"], found["positives"], found["unmatched"]) == ("churned_churned", 2, 0)
    # The project has them, and the table has ids, outcomes and instants.
    assert run(system, project, "project", "check")
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"SELECT customer_id, outcome, known_ms >= predicted_ms FROM '{found['rows']}'"
        ).fetchall()
    assert rows == [("C00000", 1.0, True), ("C00001", 1.0, True), ("C00002", 0.0, True)]
    # What the operator wrote into the declaration stays.
    declared = Path(found["declared"])
    declared.write_text(declared.read_text() + "# ours\n")
    assert made() == found
    assert declared.read_text().endswith("# ours\n")
    refused = run(
        *(system, project, "labels", "from-outcomes", "churned", "--outcome", "x"), exit_code=1
    )
    assert "all models in them are ['churned']" in refused
    usage = ("labels", "from-outcomes", "churned", "--outcome", "churned", "--absent", "no")
    assert "needs --horizon-days" in run(system, project, *usage, exit_code=2)
    check_commands_of_the_page(system, project)


def check_commands_of_the_page(system: RunningSystem, project: Path) -> None:
    """Run every command of docs/training.md about runs, versions and outcomes."""
    newest = run(system, project, "runs", "list", "--limit", "1")[0]["id"][:8]
    names = {"4f2a91c0": newest, "90be77d1": newest, "churn/7": "churned/1", "churn": "churned"}
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)[1:]
    lines = [line.partition("#")[0].split() for block in blocks for line in block.splitlines()]
    assert len(lines) == 6
    for program, *words in lines:
        assert program == "turnout"
        line = [names.get(word, word) for word in words]
        command = [*TURNOUT, "--folder", str(system.folder), "--project", str(project), *line]
        ended = subprocess.run(command, capture_output=True, text=True)
        assert ended.returncode == 0, (line, ended.stderr)
        assert ended.stdout
