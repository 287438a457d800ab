"""`turnout adopt`: models of other tools answer as their own library does."""

import asyncio
import json
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
    from host.onnx_runtime import onnxruntime

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
EVERY_TIME = {"churn_pipeline.pkl", "churn_lightgbm.txt", "churn_zipmap.onnx", "churn_network.onnx"}
"""Files of `make test`; the others take as long, and `make nightly` adopts them."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """One running system for all files."""
    with turnout_up(tmp_path_factory.mktemp("system") / ".turnout") as running:
        yield running


def write_sample(folder: Path, file: str) -> tuple[Path, str]:
    """Write a CSV file of rows with their outcome; return it and the outcome's column.

    A file without names of columns gets those that it was trained on, in order.
    """
    frame, _, churned = churn_rows(2_000, seed=7)
    label = "spend" if file == "spend_forest.joblib" else "churned"
    outcomes = frame["usage"] * 100 if label == "spend" else churned
    columns = list(COLUMNS) if file.endswith(".pkl") else NUMBERS
    path = folder / "rows.csv"
    frame[columns].assign(**{label: outcomes}).to_csv(path, index=False)
    return path, label


def check_explanation(file: str, system: RunningSystem, model: str, made: dict[str, Any]) -> None:
    """The card says what `turnout explain` does: exact contributions, or why there are none."""
    card = asyncio.run(read_card(system, model, made["version"]))
    said, importances = card["explanation"], card["importances"]
    assert set(importances) == set(card["names"])
    assert max(importances.values()) > 0.0
    numbers = [name for name in made["inputs"] if name != "plan"]
    line = [part for name in numbers for part in ("-i", f"{name}=1")]
    which = ("--model", model, "--version", made["version"])
    assert said["possible"] == (file != "churn_network.onnx"), said
    if not said["possible"]:
        refused = system.turnout("explain", *which, *line, exit_code=1)
        assert " ".join(said["reason"].split()) in " ".join(refused.split())
        return
    explained = system.turnout("explain", *which, *line)
    assert explained["background"] == "200 rows of the sample"
    assert (said["unit"], said["background_rows"]) == (explained["unit"], 200)
    total = explained["base"] + sum(item["contribution"] for item in explained["contributions"])
    assert total == pytest.approx(explained["margin"], abs=1e-9)


async def read_card(system: RunningSystem, model: str, label: str) -> dict[str, Any]:
    """Return the card of a version, as the registry has it."""
    async with system.registry_client("sam") as client:
        files = await client.fetch(model, label)
    card: dict[str, Any] = json.loads(files["card.json"])
    return card


@pytest.mark.parametrize(
    "file",
    [
        file if file in EVERY_TIME else pytest.param(file, marks=pytest.mark.nightly)
        for file in CASES
    ],
)
def test_foreign_file_answers_as_its_library(
    file: str, system: RunningSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command, then approval and deployment; every row answers as the library does."""
    score, package = CASES[file]
    pytest.importorskip(package, reason=f"{package} is in the extra `foreign`")
    monkeypatch.chdir(tmp_path)
    model = file.partition(".")[0]
    copy_model(file, tmp_path)
    sample, label = write_sample(tmp_path, file)
    # The labels of two classes do not measure three.
    measured = ["--label", label] if file != "offer_xgboost.ubj" else []

    # The version, by a person who takes every proposal.
    made = system.turnout(
        "adopt", model, file, "--sample", str(sample), *measured, "--yes", actor="dana"
    )
    evidence = made["evidence"]
    assert evidence["parity"] == (package != "onnxruntime")
    assert evidence["golden_scored_by"] is None or package != "onnxruntime"
    shown = system.turnout("versions", "show", model, made["version"])
    assert shown["evidence"] == evidence
    if measured:
        assert set(made["metrics"]) >= ({"r2"} if label == "spend" else {"auc"})
    # Another person approves.
    system.approve(model, made["version"], "initial")
    system.deploy(model, made["version"])
    check_explanation(file, system, model, made)
    frame, numbers, _ = churn_rows(ROWS, seed=11)
    rounded = numbers.astype(np.float32).astype(np.float64)
    frame = frame.assign(**{name: rounded[:, at] for at, name in enumerate(NUMBERS)})
    answers = asyncio.run(ask(system, model, made["inputs"], frame))
    expected = score(tmp_path / file, frame, rounded)
    size = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(answers, expected, atol=2e-5 * size, rtol=0)


def test_second_adoption_asks_nothing_and_gives_the_same_files(
    system: RunningSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without answers it ends with exit code 2, which names the option; the file then answers."""
    monkeypatch.chdir(tmp_path)
    file = "churn_pipeline.pkl"
    copy_model(file, tmp_path)
    sample, _ = write_sample(tmp_path, file)
    line = ["adopt", "twice", file, "--sample", str(sample), "--no-register"]
    refused = system.turnout(*line, "--out", "a", exit_code=2)
    assert "--answer unknown=WORD --answer missing=WORD" in refused
    assert not (tmp_path / "a").exists()
    options = ["--answer", "unknown=none", "--answer", "missing=none"]
    first = system.turnout(*line, *options, "--out", "a")
    second = system.turnout(*line, "--out", "b")
    assert first["answers"] == second["answers"] == str(tmp_path / "twice.adopt.toml")
    files = {"model.onnx", "contract.json", "golden.npz", "reference.json", "card.json"}
    written = {path.name for path in (tmp_path / "a").iterdir()}
    assert written == {*files, "background.npz", "manifest.json"}
    for name in (*files, "background.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    # Made-up rows are no background.
    system.turnout("adopt", "twice", file, "--no-register", "--out", "c")
    written = {path.name for path in (tmp_path / "c").iterdir()}
    assert written == {*files, "manifest.json"}


def test_try_gives_a_first_prediction_of_a_graph(
    system: RunningSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Approved in another name, deployed and asked with the first sample row."""
    monkeypatch.chdir(tmp_path)
    copy_model("churn_network.onnx", tmp_path)
    made = system.turnout("adopt", "tried", "churn_network.onnx", "--yes", "--try", actor="dana")
    assert made["evidence"]["golden_scored_by"] is None
    assert made["prediction"]["version"] == made["version"]
    assert len(made["prediction"]["scores"]) == 1
    assert set(made["prediction"]["inputs"]) <= set(made["inputs"])


def test_exported_version_scores_as_registered(
    system: RunningSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each form is read back; a folder that exists is not overwritten."""
    monkeypatch.chdir(tmp_path)
    label = system.register("exported", tmp_path / "files")
    for form, path in (("onnx", "."), ("mlflow", "."), ("triton", "exported/1")):
        out = tmp_path / form
        line = ("versions", "export", "exported", label, f"--{form}", "--out", str(out))
        system.turnout(*line)
        assert "exists already" in system.turnout(*line, exit_code=2)
        registered = tmp_path / "files" / "model.onnx"
        assert (out / path / "model.onnx").read_bytes() == registered.read_bytes()
    assert "give one of --onnx" in system.turnout(
        *("versions", "export", "exported", label, "--out", "x"), exit_code=2
    )


def test_register_says_the_next_step(system: RunningSystem, tmp_path: Path) -> None:
    """A file, a folder with a model alone or with weights beside it, and a stray file."""
    copy_model("churn_network.onnx", tmp_path)
    graph = tmp_path / "churn_network.onnx"
    adopt = f"turnout adopt foreign {graph}"
    register = ("versions", "register", "foreign")
    assert adopt in " ".join(system.turnout(*register, str(graph), exit_code=1).split())
    assert adopt in " ".join(system.turnout(*register, str(tmp_path), exit_code=1).split())
    (tmp_path / "churn_network.onnx.data").unlink()
    assert adopt in " ".join(system.turnout(*register, str(tmp_path), exit_code=1).split())
    graph.unlink()
    (tmp_path / ".DS_Store").touch()
    stray = " ".join(system.turnout(*register, str(tmp_path), exit_code=1).split())
    assert "Delete what does not belong" in stray
    nowhere = system.turnout(*register, str(tmp_path / "nowhere"), exit_code=1)
    assert "Name the folder" in " ".join(nowhere.split())


def copy_model(file: str, folder: Path) -> None:
    """Copy a foreign file, with what lies beside it under its name, or a foreign folder."""
    for part in FILES.glob(f"{file}*"):
        (shutil.copytree if part.is_dir() else shutil.copy)(part, folder / part.name)


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


def test_columns_of_a_projects_view_are_read_by_key(
    system: RunningSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers are a file of the project, which the next plan does not take for settings."""
    pytest.importorskip("lightgbm", reason="lightgbm is in the extra `foreign`")
    monkeypatch.chdir(tmp_path)
    # A project of a table, whose view is in both stores.
    frame, numbers, churned = churn_rows(1_000, seed=3)
    frame = frame[NUMBERS].assign(
        case_id=[f"K{row}" for row in range(len(frame))],
        churned=churned,
        taken_at=pandas_now(),
    )
    frame.to_csv(tmp_path / "cases.csv", index=False)
    made = ("init", "keyed", "--from", "cases.csv", "--entity", "case_id")
    system.turnout(*made, "--time", "taken_at", "--label", "churned")
    monkeypatch.chdir(tmp_path / "keyed")
    system.turnout("apply", "--yes", "--reason", "first")
    view = system.turnout("features", "views")[0]["view"]
    system.turnout("features", "ingest", view)
    system.turnout("features", "materialise", view)
    copy_model("churn_lightgbm.txt", tmp_path)

    # Its features are those that the model names.
    line = ("adopt", "bykey", "../churn_lightgbm.txt", "--view", view)
    assert "1 question is open" in system.turnout(*line, actor="dana", exit_code=2)
    adopted = system.turnout(*line, "--yes", actor="dana")
    assert sorted(adopted["inputs"]) == sorted(f"{view}:{name}" for name in NUMBERS)
    assert adopted["sample"] == f"the 1,000 newest rows of {view}"
    assert (tmp_path / "keyed" / "models" / "bykey.adopt.toml").is_file()
    assert system.turnout("project", "check") is not None
    system.approve("bykey", adopted["version"], "initial")
    system.deploy("bykey", adopted["version"])
    expected = by_lightgbm(tmp_path / "churn_lightgbm.txt", None, numbers)
    for row in (0, 7, 999):
        answer = system.turnout("predict", "bykey", f"K{row}")
        assert answer["row_flags"] == [[]]
        assert answer["scores"][0][0] == pytest.approx(expected[row, 0], abs=1e-5)


def pandas_now() -> Any:  # noqa: ANN401
    """Return the instant a minute ago, in UTC."""
    import pandas

    return pandas.Timestamp.now(tz="UTC") - pandas.Timedelta(minutes=1)
