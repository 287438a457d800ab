"""`turnout train` fits by an author's own function, which is a file of the project."""

import json
import re
import subprocess
from pathlib import Path

import duckdb
import pytest

from tests.walks.running_system import TURNOUT

pytestmark = pytest.mark.walk

ROWS = """
    SELECT printf('C%05d', range) AS customer_id, now()::TIMESTAMP - INTERVAL 1 DAY AS taken_at,
           (hash(range) % 100)::INTEGER AS minutes,
           minutes + (hash(range + 10000) % 100)::INTEGER > 100 AS churned
    FROM range(4000)"""
OWN = '''
"""A logistic curve over the first column, fitted by hand."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def fit(rows, targets, seed, steepness=0.05):
    middle = np.float32((rows[targets, 0].mean() + rows[~targets, 0].mean()) / 2)
    weights = np.zeros((rows.shape[1], 1), np.float32)
    weights[0] = steepness
    bias = np.float32(-steepness) * middle
    tensors = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "own",
        [value("x", TensorProto.FLOAT, [None, rows.shape[1]])],
        [value("y", TensorProto.FLOAT, [None, 1])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def predict(rows):
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-(rows.astype(np.float64) @ weights + bias)))

    return model.SerializeToString(), predict
'''


def turnout(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a turnout command in *folder*, which no system serves."""
    return subprocess.run(
        [*TURNOUT, *words], cwd=folder, capture_output=True, text=True, check=False
    )


def test_training_calls_the_function_of_a_project_s_file(tmp_path: Path) -> None:
    """The card names the function and its arguments, and says who scores the version."""
    # A project from a table, whose recipe gets a function of the author.
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({ROWS}) TO '{tmp_path / 'customers.parquet'}' (FORMAT parquet)")
    made = turnout(
        tmp_path,
        *("init", "shop", "--from", "customers.parquet", "--entity", "customer_id"),
        *("--time", "taken_at", "--label", "churned"),
    )
    assert made.returncode == 0, made.stderr
    project = tmp_path / "shop"
    (project / "lib").mkdir(exist_ok=True)
    (project / "lib" / "own.py").write_text(OWN)
    recipe = project / "recipes" / "churned.py"
    text, count = re.subn(
        r"learner=Learner\(.*?\n    \),",
        "learner=Learner.function(fit, steepness=0.06),",
        recipe.read_text(),
        flags=re.DOTALL,
    )
    assert count == 1
    recipe.write_text(text.replace("from turnout", "from lib.own import fit\nfrom turnout", 1))
    # Train it as any other recipe.
    assert turnout(project, "features", "ingest", "customers").returncode == 0
    train = ("--json", "train", "churned", "--no-register", "--champion", "none", "--out")
    trained = turnout(project, *train, str(tmp_path / "version"))
    assert trained.returncode == 0, trained.stderr
    card = json.loads((tmp_path / "version" / "card.json").read_text())
    parameters = card["learner"]["hyperparameters"]
    assert (parameters["function"], parameters["arguments"]) == ("lib.own:fit", {"steepness": 0.06})
    assert card["parity"]["passed"] is True
    assert json.loads(trained.stdout)["native"] == card["native"]
    assert card["native"]["used"] is True
