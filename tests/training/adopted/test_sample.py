"""Tests of sample rows: files, names of columns, and made-up rows."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.training.adopted.foreign_models import foreign_model
from training.adopted.answers import Answers
from training.adopted.proposals import foreign_columns, propose
from training.adopted.sample import MADE_ROWS, made_sample, read_sample, sample_columns
from training.adoption.foreign import ForeignInput, ForeignModel
from training.errors import AdoptionError


def answers_of(model: ForeignModel) -> Answers:
    """Return the proposals without features."""
    return propose(model, [], {}).answers


def test_sample_file_keeps_missing_values_and_kinds(tmp_path: Path) -> None:
    """NaN stands for a missing number, None for a missing text."""
    path = tmp_path / "rows.jsonl"
    rows = [{"n": 1, "t": "a", "b": True}, {"n": None, "t": None, "b": False}]
    path.write_text("\n".join(map(json.dumps, rows)))
    table = read_sample(path)

    assert np.array_equal(table["n"], [1.0, np.nan], equal_nan=True)
    assert table["t"].tolist() == ["a", None]
    assert table["b"].tolist() == [True, False]


def test_sample_of_a_long_file_is_spread_over_it(tmp_path: Path) -> None:
    """A file that is sorted by its label must not lose the labels at its end."""
    path = tmp_path / "rows.csv"
    path.write_text("n\n" + "\n".join(map(str, range(25_000))))
    numbers = read_sample(path)["n"]
    assert 5_000 < len(numbers) <= 10_000
    assert numbers[-1] > 24_990
    assert set(np.diff(numbers)) == {3.0}


@pytest.mark.parametrize(("content", "name"), [("", "x.csv"), ("n\n", "x.csv"), ("n\n1", "x.txt")])
def test_sample_that_has_no_rows_is_refused(tmp_path: Path, content: str, name: str) -> None:
    """An empty file, a head without rows, and a format that is not known."""
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(AdoptionError, match="the sample x"):
        read_sample(path)


def test_columns_are_found_by_name_or_all_by_order() -> None:
    """Case and punctuation aside; a column that is not there is named."""
    model = foreign_model(ForeignInput("x", "float", ("x_0", "x_1")))
    columns, answers = foreign_columns(model), answers_of(model)
    table = {"A": np.array([1.0]), "B": np.array([2.0])}
    by_order = sample_columns(table, columns, answers)
    assert (by_order["x_0"], by_order["x_1"]) == (1.0, 2.0)
    by_name = sample_columns({"X1": np.array([3.0]), "x-0": np.array([4.0])}, columns, answers)
    assert (by_name["x_0"], by_name["x_1"]) == (4.0, 3.0)
    with pytest.raises(AdoptionError, match=r"no column for \['x_1'\] of the model"):
        sample_columns({"x_0": np.array([1.0]), "y": np.array([1.0])}, columns, answers)


def test_sample_gives_texts_and_numbers_as_the_model_takes_them() -> None:
    """A whole number becomes a word without a point; a text is no number."""
    model = foreign_model()
    table = {
        "tenure_months": np.array([1.0, np.nan]),
        "age": np.array([True, False]),
        "plan": np.array([7.0, np.nan]),
    }
    found = sample_columns(table, foreign_columns(model), answers_of(model))
    assert found["plan"].tolist() == ["7", None]
    assert found["age"].tolist() == [1.0, 0.0]
    with pytest.raises(AdoptionError, match="'age' of the model takes numbers"):
        sample_columns(
            {**table, "age": np.array(["x", "y"], dtype=object)},
            foreign_columns(model),
            answers_of(model),
        )


def test_made_rows_reach_both_branches_of_each_split() -> None:
    """Values lie below, at and above every threshold, and every word is drawn."""
    # A tree with one split, of the second of two columns.
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[1, 0, 0],
        nodes_values=[250.0, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        target_ids=[0, 0],
        target_treeids=[0, 0],
        target_nodeids=[1, 2],
        target_weights=[0.0, 1.0],
    )
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width])
        for name, width in (("x", 2), ("y", 1))
    ]
    graph = helper.make_graph([node], "tree", tensors[:1], tensors[1:])
    onnx_model: onnx.ModelProto = helper.make_model(graph)
    # The model has words too.
    model = foreign_model(
        ForeignInput("x", "float", ("a", "b")), ForeignInput("p", "text", ("p",), (("u", "v"),))
    )
    made = made_sample(onnx_model.SerializeToString(), foreign_columns(model), answers_of(model))

    assert len(made["b"]) == MADE_ROWS
    assert {-1.0, 0.0, 1.0} == set(np.sign(made["b"] - 250.0))
    assert np.std(made["a"]) > 0
    assert set(made["p"]) == {"u", "v"}
    again = made_sample(onnx_model.SerializeToString(), foreign_columns(model), answers_of(model))
    assert np.array_equal(made["b"], again["b"])
