"""What a file is, its content says."""

import pickle
import zipfile
from pathlib import Path

import pytest

from tests.training.adoption.make_files import FILES
from training.adoption.convert.file_kinds import FileKind, find_model
from training.errors import AdoptionError

KINDS = {
    "churn_pipeline.pkl": FileKind.PICKLE,
    "churn_boosted.pkl": FileKind.PICKLE,
    "spend_forest.joblib": FileKind.PICKLE,
    "churn_lightgbm.txt": FileKind.LIGHTGBM,
    "offer_xgboost.ubj": FileKind.XGBOOST,
    "churn_catboost.cbm": FileKind.CATBOOST,
    "churn_zipmap.onnx": FileKind.ONNX,
    "churn_network.onnx": FileKind.ONNX,
}


@pytest.mark.parametrize("name", KINDS)
def test_kind_is_known_without_the_name(name: str, tmp_path: Path) -> None:
    """A copy called `model` is known too."""
    path = tmp_path / "model"
    path.write_bytes((FILES / name).read_bytes())
    assert find_model(path, "model").kind is KINDS[name]


def test_oldest_pickles_are_known(tmp_path: Path) -> None:
    """Protocol 0 is text."""
    path = tmp_path / "model"
    path.write_bytes(pickle.dumps([1], protocol=0))
    assert find_model(path, "model").kind is FileKind.PICKLE


def test_folder_with_one_model_and_its_weights_is_a_model(tmp_path: Path) -> None:
    """Other files, such as a README, are no models."""
    for name in ("churn_network.onnx", "churn_network.onnx.data"):
        (tmp_path / name).write_bytes((FILES / name).read_bytes())
    (tmp_path / "README").write_text("about the model", encoding="utf-8")
    found = find_model(tmp_path, "folder")
    assert (found.kind, found.shown) == (FileKind.ONNX, "folder/churn_network.onnx")
    assert "churn_network.onnx.data" in found.siblings


def test_folder_of_mlflow_names_its_file() -> None:
    """The first flavour that can be adopted is taken."""
    found = find_model(FILES / "churn_mlflow", "churn_mlflow")
    assert (found.kind, found.shown) == (FileKind.PICKLE, "churn_mlflow/model.pkl")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "model is empty"),
        (b"\x89HDF\r\n\x1a\n", "export it to ONNX with tf2onnx"),
        (b"<?xml version='1.0'?><PMML/>", "perhaps PMML"),
        (b"PAR1....", "which holds rows and no model"),
        (b"binf....", "save it as model.ubj"),
        (b"PK\x03\x04 damaged", "a damaged zip archive"),
        (b"hello, world", "is none of ONNX, pickle, skops, LightGBM text"),
    ],
)
def test_other_files_are_refused_in_words(content: bytes, sentence: str, tmp_path: Path) -> None:
    """The sentence says what the file is, or what it should be."""
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(AdoptionError, match=sentence):
        find_model(path, "model")


def test_file_of_torch_is_refused_in_words(tmp_path: Path) -> None:
    """It is a zip archive with a pickle that needs the classes."""
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"")
    with pytest.raises(AdoptionError, match=r"torch\.onnx\.export"):
        find_model(path, "model.pt")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("flavors:\n  sklearn:\n    pickled_model: ../secret\n", "which is not in the folder"),
        ("flavors:\n  sklearn:\n    code: null\n", "names ''"),
        ("flavors:\n  spark:\n    model_data: sparkml\n", "with the flavours spark; onnx"),
        ("run_id: 1\n", "with the flavours none"),
    ],
)
def test_description_of_mlflow_is_not_trusted(text: str, sentence: str, tmp_path: Path) -> None:
    """It may name anything."""
    (tmp_path / "secret").write_bytes(b"\x80\x04N.")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text(text, encoding="utf-8")
    with pytest.raises(AdoptionError, match=sentence):
        find_model(folder, "model")


def test_folder_with_two_models_is_refused(tmp_path: Path) -> None:
    """The user says which."""
    for name in ("a.pkl", "b.pkl"):
        (tmp_path / name).write_bytes(b"\x80\x04N.")
    with pytest.raises(AdoptionError, match=r"has 2 model files \(a\.pkl, b\.pkl\)"):
        find_model(tmp_path, "folder")
