"""Models of other tools, opened in the sandbox of this host."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import sklearn

from host.sandbox import run
from host.sandbox.run import Isolation
from tests.training.adoption.foreign_rows import COLUMNS, PLANS, churn_columns, churn_rows
from tests.training.adoption.make_files import FILES
from training.adoption.foreign_session import ForeignSession
from training.adoption.open_foreign import open_foreign
from training.errors import AdoptionError

pytestmark = pytest.mark.walk


def test_pipeline_comes_back_with_its_library_s_scores() -> None:
    """Names of columns, words, classes, rows and both truths: as served, and exact."""
    steps: list[str] = []
    sample = churn_columns(500, seed=3)
    model = open_foreign(FILES / "churn_pipeline.pkl", sample, progress=steps.append)
    assert model.origin == "Pipeline in churn_pipeline.pkl"
    assert model.truth_by == f"scikit-learn {sklearn.__version__}"
    assert [item.columns for item in model.inputs] == [(name,) for name in COLUMNS]
    assert [item.kind for item in model.inputs] == ["double", "double", "double", "text"]
    assert model.inputs[3].categories == (tuple(sorted(PLANS)),)
    (output,) = [item for item in model.outputs if item.kind == "probabilities"]
    assert output.classes == ("0", "1")
    assert steps[0] == "opening churn_pipeline.pkl (pickle)"
    assert len(steps) == 3
    # The truth is what this process gets from the same pickle, on float32 rows and on exact ones.
    assert model.sample_rows == 500
    frame, _, _ = churn_rows(500, seed=3)
    with (FILES / "churn_pipeline.pkl").open("rb") as file:
        pipeline = pickle.load(file)
    served = frame.assign(usage=frame["usage"].astype(np.float32).astype(np.float64))
    served["balance"] = frame["balance"].astype(np.float32).astype(np.float64)
    assert (model.truth["probabilities"][:500] == pipeline.predict_proba(served)).all()
    assert (model.truth_exact["probabilities"] == pipeline.predict_proba(frame)).all()
    scores = ForeignSession(model.onnx).run(model.rows, "probabilities")
    assert np.abs(scores - model.truth["probabilities"])[:500].max() < 1e-7


def test_graph_with_weights_in_a_second_file_comes_back_as_one(tmp_path: Path) -> None:
    """An ONNX file is its own truth. Without its weights it is refused."""
    model = open_foreign(FILES / "churn_network.onnx", {})
    assert model.origin == "pytorch 2.9.0 graph, churn_network.onnx"
    assert (model.truth_by, dict(model.truth), dict(model.rows)) == ("", {}, {})
    assert model.inputs[0].columns == ("x_0", "x_1", "x_2")
    feed = {"x": np.ones((2, 3), np.float32)}
    assert ForeignSession(model.onnx).run(feed, "sigmoid").shape == (2, 1)
    shutil.copy(FILES / "churn_network.onnx", tmp_path)
    with pytest.raises(AdoptionError, match=r"churn_network\.onnx\.data"):
        open_foreign(tmp_path / "churn_network.onnx", {})


def test_pickle_of_another_scikit_learn_is_refused_with_both_versions(tmp_path: Path) -> None:
    """Its scores may be others, and nothing would show it."""
    path = tmp_path / "old.pkl"
    content = (FILES / "churn_pipeline.pkl").read_bytes()
    assert sklearn.__version__.encode() in content
    path.write_bytes(content.replace(sklearn.__version__.encode(), b"1.2.3"))
    sentence = f"saved by scikit-learn 1.2.3, and {sklearn.__version__} is installed"
    with pytest.raises(AdoptionError, match=sentence):
        open_foreign(path, {})


def test_pickle_of_missing_code_says_how_to_save_it(tmp_path: Path) -> None:
    """A pickle has only names of classes."""
    path = tmp_path / "model.pkl"
    path.write_bytes(b"cchurnlib.models\nChurn\n.")
    with pytest.raises(
        AdoptionError, match=r"needs the module 'churnlib'.*register_pickle_by_value"
    ):
        open_foreign(path, {})


def test_sample_must_have_the_model_s_columns() -> None:
    """The sentence names those that are missing."""
    sample = churn_columns(10)
    del sample["tenure"]
    with pytest.raises(AdoptionError, match="lacks 1 columns of the model: tenure"):
        open_foreign(FILES / "churn_lightgbm.txt", sample)
    with pytest.raises(AdoptionError, match=r"have \[3, 10\] rows"):
        open_foreign(FILES / "churn_lightgbm.txt", {**sample, "tenure": np.arange(3)})


def test_host_without_sandbox_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the user says so; then the same code runs with limits alone."""
    complaints = {Isolation.BUBBLEWRAP: "not installed", Isolation.NAMESPACES: "refused"}
    monkeypatch.setattr(run, "_trial", complaints.__getitem__)
    path = FILES / "churn_lightgbm.txt"
    with pytest.raises(AdoptionError, match=r"runs no sandbox.*--without-sandbox if you trust"):
        open_foreign(path, {})
    model = open_foreign(path, {}, isolation=Isolation.NONE)
    assert model.inputs[0].columns == COLUMNS[:3]
