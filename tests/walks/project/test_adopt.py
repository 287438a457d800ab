"""`turnout adopt`: models of other tools answer as their own library does."""

import asyncio
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.adoption.foreign_rows import COLUMNS, churn_rows
from tests.walks.running_system import RunningSystem, turnout_up
from turnout_client import PredictClient

pytestmark = pytest.mark.walk

FILES = Path(__file__).parents[2] / "training" / "adoption" / "files"
ROWS = 200
NUMBERS = list(COLUMNS[:3])

Score = Callable[[Path, Any, NDArray[np.float64]], NDArray[np.float64]]
"""(file, frame of COLUMNS, its (N, 3) numbers) -> (N, K) by the library itself."""


def by_pickle(path: Path, frame: Any, numbers: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ANN401
    """Return P(positive) by scikit-learn, of a pipeline on named columns or on numbers."""
    model = pickle.loads(path.read_bytes())
    rows = frame if hasattr(model, "feature_names_in_") else numbers
    scores: NDArray[np.float64] = model.predict_proba(rows)[:, 1:]
    return scores


def by_joblib(path: Path, frame: Any, numbers: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ANN401
    """Return the values of a regressor."""
    import joblib

    values: NDArray[np.float64] = joblib.load(path).predict(numbers)[:, np.newaxis]
    return values


def by_mlflow(path: Path, frame: Any, numbers: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ANN401
    """Return P(positive) of the pickle in the folder."""
    return by_pickle(path / "model.pkl", frame, numbers)


def by_lightgbm(path: Path, frame: Any, numbers: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ANN401
    """Return P(positive)."""
    import lightgbm

    scores = lightgbm.Booster(model_file=path).predict(numbers)
    return np.asarray(scores, dtype=np.float64)[:, np.newaxis]


def by_xgboost(path: Path, frame: Any, numbers: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ANN401
    """Return the probabilities of three classes."""
    import xgboost

    booster = xgboost.Booster(model_file=str(path))
    return np.asarray(booster.predict(xgboost.DMatrix(numbers, feature_names=NUMBERS)))


def by_catboost(path: Path, frame: Any, numbers: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ANN401
    """Return P(positive)."""
    import catboost

    model = catboost.CatBoostClassifier()
    model.load_model(str(path))
    return np.asarray(model.predict_proba(numbers))[:, 1:]


def by_onnx(path: Path, frame: Any, numbers: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ANN401
    """Return what ONNX Runtime says of the file as it is."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: numbers.astype(np.float32)})[-1]
    if isinstance(found, list):
        return np.array([[classes[1]] for classes in found])
    return np.asarray(found)


CASES: dict[str, tuple[Score, str]] = {
    "churn_pipeline.pkl": (by_pickle, "sklearn"),
    "churn_boosted.pkl": (by_pickle, "lightgbm"),
    "spend_forest.joblib": (by_joblib, "sklearn"),
    "churn_mlflow": (by_mlflow, "sklearn"),
    "churn_lightgbm.txt": (by_lightgbm, "lightgbm"),
    "offer_xgboost.ubj": (by_xgboost, "xgboost"),
    "churn_catboost.cbm": (by_catboost, "catboost"),
    "churn_zipmap.onnx": (by_onnx, "onnxruntime"),
    "churn_network.onnx": (by_onnx, "onnxruntime"),
}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """One running system for all files."""
    with turnout_up(tmp_path_factory.mktemp("system") / ".turnout") as running:
        yield running


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file of rows with their outcome and spend."""
    frame, _, churned = churn_rows(2_000, seed=7)
    path = tmp_path_factory.mktemp("sample") / "rows.csv"
    frame.assign(churned=churned, spend=frame["usage"] * 100).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("file", CASES)
def test_foreign_file_answers_as_its_library(
    file: str,
    system: RunningSystem,
    sample: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One command, then approval and deployment; the answers file asks nothing the next time."""
    score, package = CASES[file]
    pytest.importorskip(package, reason=f"{package} is in the extra `foreign`")
    monkeypatch.chdir(tmp_path)
    model = file.partition(".")[0]
    for part in FILES.glob(f"{file}*"):
        (shutil.copytree if part.is_dir() else shutil.copy)(part, tmp_path / part.name)
    label = {"spend_forest.joblib": "spend", "offer_xgboost.ubj": ""}.get(file, "churned")
    options = ["--sample", str(sample), *(["--label", label] if label else [])]

    # The version, by a person who takes every proposal.
    made = system.turnout("adopt", model, file, *options, "--yes", actor="dana")
    assert made["seconds"] > 0
    evidence = made["evidence"]
    assert evidence["parity"] == (package != "onnxruntime")
    shown = system.turnout("versions", "show", model, made["version"])
    assert shown["evidence"] == evidence
    if label:
        assert set(made["metrics"]) >= ({"r2"} if label == "spend" else {"auc"})
    # A second adoption asks nothing, and gives the same graph.
    again = system.turnout("adopt", model, file, *options, "--no-register", "--out", "again")
    assert again["evidence"] == evidence
    # Another person approves; every row answers as the library does.
    system.approve(model, made["version"], "initial")
    system.deploy(model, made["version"])
    frame, numbers, _ = churn_rows(ROWS, seed=11)
    rounded = numbers.astype(np.float32).astype(np.float64)
    frame = frame.assign(**{name: rounded[:, at] for at, name in enumerate(NUMBERS)})
    answers = asyncio.run(ask(system, model, made["inputs"], frame))
    expected = score(tmp_path / file, frame, rounded)
    size = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(answers, expected, atol=2e-5 * size, rtol=0)


async def ask(
    system: RunningSystem,
    model: str,
    columns: list[str],
    frame: Any,  # noqa: ANN401
) -> NDArray[np.float32]:
    """Return (ROWS, K) scores of the gateway; each row names its inputs, as a service sends it."""
    # Columns that the file has no names for stand in the order of the numbers.
    named = list(COLUMNS) if set(columns) <= set(COLUMNS) else NUMBERS
    known = dict(zip(columns, columns if set(columns) <= set(COLUMNS) else named, strict=True))
    rows = [
        {column: _plain(frame[name].iloc[row]) for column, name in known.items()}
        for row in range(len(frame))
    ]
    scores = []
    async with PredictClient(system.addresses.gateway) as client:
        for start in range(0, len(rows), 50):
            prediction = await client.predict(model, named=rows[start : start + 50], timeout_s=10)
            scores.append(prediction.scores)
    return np.concatenate(scores)


def _plain(value: object) -> float | str:
    return value if isinstance(value, str) else float(value)  # type: ignore[arg-type]
