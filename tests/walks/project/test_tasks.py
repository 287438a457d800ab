"""Models of several classes and of values, from a project's recipes to a judged rollout."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from onnx import helper, numpy_helper

from project.new_project import write_new_project
from registry import bundle
from tests.walks.models.test_judged_outputs import roll_out
from tests.walks.running_system import TURNOUT, RunningSystem, turnout_up
from training.drills import bad_versions

pytestmark = pytest.mark.walk

CLASSES = ("low", "middle", "high")
DECLARED = """
from turnout.define import Labels, Source

{value} = Labels(
    name="{value}",
    entities=("subscriber",),
    source=Source.files("data/asked.parquet", time="asked_at"),
    value="{value}",
    kind="{kind}",
    inputs=("x0", "x1", "x2"),
)
"""
RECIPE = """
from labels.{value} import {value} as outcomes
from turnout.define import GateSettings, Learner, Recipe, RequestInput

recipe = Recipe(
    model="{model}",
    setting="{setting}",
    entities=("subscriber",),
    features=(),
    inputs=tuple(RequestInput(name=f"x{{column}}", default=0.5) for column in range(3)),
    label="{value}",
    labels=outcomes,
    task="{task}",
    {more},
    learner=Learner(kind="boosting", parameters={{"max_iter": {trees}, "max_leaf_nodes": 6}}),
)
"""
OFFERS = {
    "value": "tariff",
    "kind": "class",
    "model": "offers",
    "task": "multiclass",
    "more": f"classes={CLASSES!r}",
}
SPEND = {
    "value": "spend",
    "kind": "number",
    "model": "spend",
    "task": "regression",
    "more": 'unit="EUR"',
}


@pytest.fixture(scope="module")
def tasks_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose callers send three numbers, which tell the tariff and the spend."""
    root: Path = tmp_path_factory.mktemp("tasks") / "project"
    texts = {f"labels/{model['value']}.py": DECLARED.format(**model) for model in (OFFERS, SPEND)}
    for model in (OFFERS, SPEND):
        for setting, trees in (("first", 12), ("second", 40)):
            text = RECIPE.format(**model, setting=setting, trees=trees)
            texts[f"recipes/{model['model']}_{setting}.py"] = text
    write_new_project(root, "tasks", "network-ds", extra=texts)
    (root / "data").mkdir()
    number = "(hash(i * 8 + {column}) % 1000) / 1000.0"
    columns = ", ".join(f"{number.format(column=at)} AS x{at}" for at in range(4))
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT *, ['low', 'middle', 'high'][1 + (told > .8)::INT + (told > 1.2)::INT] "
            "AS tariff, 30000 + 20000 * told AS spend FROM (SELECT 'S' || i AS subscriber, "
            f"now() - INTERVAL 1 DAY AS asked_at, {columns}, "
            "x0 + x1 * .8 + x2 * .2 + x3 * .2 AS told "
            f"FROM range(3000) t(i))) TO '{root}/data/asked.parquet'"
        )
    return root


@pytest.fixture(scope="module")
def system(
    tasks_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningSystem, dict[str, Any]]]:
    """A running system with both models in production, and what `turnout try` said of each."""
    with turnout_up(tmp_path_factory.mktemp("system") / ".turnout") as running:
        project = ("--setting", "first", "--project", str(tasks_project))
        tried = {
            model: running.turnout("try", "--model", model, *project)
            for model in ("offers", "spend")
        }
        yield running, tried


def page(system: RunningSystem, *line: str) -> str:
    """What a person sees of a command."""
    command = [*TURNOUT, *line, "--folder", str(system.folder)]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    ).stdout


def test_trained_classes_and_values_are_served_by_their_names(
    system: tuple[RunningSystem, dict[str, Any]], tasks_project: Path
) -> None:
    """From two commands to a score over gRPC, which the approver's page, runs and client name."""
    running, tried = system
    for model in (OFFERS, SPEND):
        found = tried[model["model"]]
        scores = found["prediction"]["scores"][0]
        # The printed client code gives the same, by the name of each class.
        command = [sys.executable, "-c", found["client_code"]]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        if model is OFFERS:
            assert found["prediction"]["outputs"] == list(CLASSES)
            assert sum(scores) == pytest.approx(1.0, abs=1e-5)
            assert printed.split()[0] == CLASSES[int(np.argmax(scores))]
        else:
            assert 20_000 < scores[0] < 90_000
            assert float(printed.split()[0]) == pytest.approx(scores[0], rel=1e-6)
    # The approver sees the metrics of the task, and their unit.
    shown = running.turnout("versions", "show", "offers", "1")
    assert shown["task"] == "multiclass"
    assert [item["name"] for item in shown["outputs"]] == list(CLASSES)
    assert {"log_loss", "accuracy", "auc", "recall.high"} <= set(shown["card"]["metrics"])
    assert shown["card"]["data"]["classes"].keys() == set(CLASSES)
    approved = page(running, "versions", "show", "spend", "1")
    assert " EUR" in next(line for line in approved.splitlines() if "metrics: mae" in line)
    assert "gate: skill" in approved
    (run,) = running.turnout("runs", "list", "spend")
    report = page(running, "runs", "show", run["id"])
    assert " EUR" in next(line for line in report.splitlines() if line.startswith("mae"))
    # A second version is compared with the first in the metric of the task.
    for model, gain in (("offers", "log_loss_gain"), ("spend", "mae_gain")):
        project = ("--setting", "second", "--project", str(tasks_project))
        trained = running.turnout("train", model, *project, actor="dana")
        card = running.turnout("versions", "show", model, trained["version"])["card"]
        assert card[gain]["low"] > 0
        assert card["expected_shift"]["task"] == trained["task"]


@pytest.mark.nightly
@pytest.mark.parametrize("model", ["offers", "spend"])
def test_better_trained_version_is_promoted(
    system: tuple[RunningSystem, dict[str, Any]], tasks_project: Path, model: str
) -> None:
    """Shadow and canary judge every output by the shift that was accepted."""
    running, _ = system
    project = ("--setting", "second", "--champion", "1", "--project", str(tasks_project))
    label = running.turnout("train", model, *project, actor="dana")["version"]
    status = roll_out(running, model, label, "demo")
    assert status["stage"] == "DONE", status["reason"]


@pytest.mark.nightly
def test_trained_version_with_two_classes_swapped_is_rolled_back(
    system: tuple[RunningSystem, dict[str, Any]], tasks_project: Path, tmp_path: Path
) -> None:
    """Its reference is that of a good version, so only the judge can find it."""
    running, _ = system
    out = tmp_path / "version"
    line = ("train", "offers", "--setting", "second", "--champion", "none", "--no-register")
    running.turnout(*line, "--out", str(out), "--project", str(tasks_project), actor="dana")
    files = bundle.read_version_folder(out)
    order = numpy_helper.from_array(np.array([0, 2, 1]), "drill_order")
    swap = helper.make_node("Gather", [bad_versions.SCORES_BEFORE, order.name], ["scores"], axis=1)
    bad = bad_versions.rewrite_scores(files["model.onnx"], [swap], [order])
    swapped = bad_versions.finish_bad_version(files, bad, "swapped", 1.0)
    folder = tmp_path / "swapped"
    folder.mkdir()
    for name, content in swapped.files.items():
        (folder / name).write_bytes(content)
    label = running.turnout("versions", "register", "offers", str(folder), actor="dana")["label"]
    card = json.loads(swapped.files["card.json"])
    assert card["drill"]["kind"] == "swapped"
    status = roll_out(running, "offers", label, "demo")
    assert status["stage"] == "ROLLED_BACK", status["reason"]
    assert "swapped" in status["reason"]
