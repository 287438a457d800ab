"""Tells by the content of a file or folder which tool wrote it. Names and suffixes say nothing."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from training.errors import AdoptionError

HEAD_BYTES = 4_096
FILE_BYTES_MAX = 1024 * 1024 * 1024
FOLDER_FILES_MAX = 1_000
MLMODEL_BYTES_MAX = 1024 * 1024
MLMODEL = "MLmodel"
FLAVOURS = {
    "onnx": ("data",),
    "lightgbm": ("data",),
    "xgboost": ("data",),
    "catboost": ("data",),
    "sklearn": ("pickled_model",),
}
"""Flavour of an MLflow model -> the key that names its file. The first that is there is taken."""


class FileKind(Enum):
    """What a file is."""

    ONNX = "ONNX"
    PICKLE = "pickle"
    SKOPS = "skops"
    LIGHTGBM = "LightGBM text"
    XGBOOST = "XGBoost JSON or UBJ"
    CATBOOST = "CatBoost cbm"


COMPRESSED = (b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"BZh", b"\xfd7zXZ")
"""First bytes of what joblib compresses."""

OTHER_FORMATS = {
    b"\x89HDF": "a file of Keras or HDF5: export it to ONNX with tf2onnx",
    b"<?xml": "XML, perhaps PMML: export the model to ONNX with its own tool",
    b"PAR1": "a Parquet file, which holds rows and no model",
    b"\x93NUMPY": "an array of numpy, which is no model",
    b"binf": "an old binary file of XGBoost: save it as model.ubj with the XGBoost that wrote it",
    b"RDX": "a file of R: export the model to ONNX from R, or save its booster as a file",
}
"""First bytes -> what the file is, and the way out."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One model file.

    siblings  files beside it that may have its weights, by name.
    warnings  what the folder says that matters.
    """

    path: Path
    shown: str
    kind: FileKind
    siblings: dict[str, Path] = field(default_factory=dict)


def find_model(path: Path, shown: str) -> ModelFile:
    """Return the model file at *path*, which is a file, an MLflow folder, or a folder with one.

    shown  the name by which the user knows it.

    Raises AdoptionError when there is none, or several.
    """
    if path.is_dir():
        return _in_folder(path, shown)
    return ModelFile(path, shown, _kind_of(path, shown), _siblings(path))


def _in_folder(folder: Path, shown: str) -> ModelFile:
    """Return the model of a folder: by its MLmodel, else its only model file."""
    if (folder / MLMODEL).is_file():
        path = _mlflow_file(folder, shown)
        name = f"{shown}/{path.relative_to(folder).as_posix()}"
        if path.is_dir():
            return _in_folder(path, name)
        return ModelFile(path, name, _kind_of(path, name), _siblings(path))
    found = []
    for path in _plain_files(folder, shown):
        try:
            found.append((path, _kind_of(path, path.name)))
        except AdoptionError:
            continue  # a README or weights beside the model
    if len(found) != 1:
        names = ", ".join(path.name for path, _ in found) or "none"
        raise AdoptionError(
            f"{shown} has {len(found)} model files ({names}); give the path of the one to adopt, "
            "or a folder with one model and its weights"
        )
    path, kind = found[0]
    return ModelFile(path, f"{shown}/{path.name}", kind, _siblings(path))


def _plain_files(folder: Path, shown: str) -> Iterator[Path]:
    for number, path in enumerate(sorted(folder.iterdir())):
        if number >= FOLDER_FILES_MAX:
            raise AdoptionError(f"{shown} has more than {FOLDER_FILES_MAX} files")
        if path.is_file() and not path.is_symlink():
            yield path


def _siblings(path: Path) -> dict[str, Path]:
    return {
        other.name: other
        for other in path.parent.iterdir()
        if other != path and other.is_file() and not other.is_symlink()
    }


def read_model_file(path: Path, shown: str) -> bytes:
    """Return the content. Raises AdoptionError for a link, a device, or a file too large."""
    if path.is_symlink() or not path.is_file():
        raise AdoptionError(f"{shown} is a link or no plain file; copy the file itself there")
    size = path.stat().st_size
    if size > FILE_BYTES_MAX:
        raise AdoptionError(f"{shown} has {size} bytes; the most is {FILE_BYTES_MAX}")
    return path.read_bytes()


def _kind_of(path: Path, shown: str) -> FileKind:
    if path.is_symlink() or not path.is_file():
        raise AdoptionError(f"{shown} is a link or no plain file; copy the file itself there")
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if not head:
        raise AdoptionError(f"{shown} is empty")
    for first, what in OTHER_FORMATS.items():
        if head.startswith(first):
            raise AdoptionError(f"{shown} is {what}")
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_archive(path, shown)
    if head.startswith(b"tree\n") and b"version=" in head:
        return FileKind.LIGHTGBM
    if head.startswith(b"CBM1"):
        return FileKind.CATBOOST
    if head.startswith(b"{") and b"learner" in head:
        return FileKind.XGBOOST
    # A pickle of protocol 2 or newer, or what joblib compressed.
    if (head[:1] == b"\x80" and head[1] <= 5) if len(head) > 1 else False:
        return FileKind.PICKLE
    if head.startswith(COMPRESSED):
        return FileKind.PICKLE
    # ONNX begins with its IR version: field 1 as a small number.
    if head[0] == 0x08 and len(head) > 8 and 0 < head[1] < 64:
        return FileKind.ONNX
    # A pickle of protocol 0 or 1 is text that ends with a full stop.
    if head[:1] in (b"c", b"(", b"]", b"}") and _last_byte(path) == b".":
        return FileKind.PICKLE
    raise AdoptionError(
        f"{shown} is none of {', '.join(kind.value for kind in FileKind)}, nor a folder of MLflow; "
        "save the model in such a form"
    )


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as stream:
        stream.seek(-1, 2)
        return stream.read(1)


def _kind_of_archive(path: Path, shown: str) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise AdoptionError(f"{shown} is a damaged zip archive: {error}") from error
    if "schema.json" in names:
        return FileKind.SKOPS
    if any(name.endswith("data.pkl") for name in names):
        raise AdoptionError(
            f"{shown} is a file of PyTorch, which holds weights and names of classes; export the "
            "model with torch.onnx.export, with a dynamic batch, and adopt that"
        )
    raise AdoptionError(f"{shown} is a zip archive without a model; unpack it and give the folder")


def _mlflow_file(folder: Path, shown: str) -> Path:
    """Return the file or folder of the model that MLmodel names."""
    description = folder / MLMODEL
    if description.stat().st_size > MLMODEL_BYTES_MAX:
        raise AdoptionError(f"{shown}/{MLMODEL} has more than {MLMODEL_BYTES_MAX} bytes")
    text = description.read_text(encoding="utf-8", errors="replace")
    flavours = _flavours(text)
    for flavour, keys in FLAVOURS.items():
        values = flavours.get(flavour)
        if values is None:
            continue
        name = next((values[key] for key in keys if values.get(key)), "")
        path = (folder / name).resolve()
        if not name or not path.is_relative_to(folder.resolve()) or not path.exists():
            raise AdoptionError(
                f"{shown}/{MLMODEL} names {name!r} as the file of its {flavour} model, which is "
                "not in the folder; log the model again"
            )
        return path
    others = ", ".join(sorted(flavours)) or "none"
    raise AdoptionError(
        f"{shown} is an MLflow model with the flavours {others}; {', '.join(FLAVOURS)} can be "
        "adopted. Log it with one of them, or export it to ONNX"
    )


def _flavours(text: str) -> dict[str, dict[str, str]]:
    r"""Return flavour -> key -> value of the YAML that MLflow writes, two levels below `flavors`.

    >>> _flavours("flavors:\n  onnx:\n    data: model.onnx\n    code: null\nrun_id: 1\n")
    {'onnx': {'data': 'model.onnx', 'code': ''}}
    """
    flavours: dict[str, dict[str, str]] = {}
    inside, current = False, ""
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip(" "))
        key, _, value = line.strip().partition(":")
        if indent == 0:
            inside = key == "flavors"
        elif inside and indent == 2 and not value.strip():
            current = key
            flavours[current] = {}
        elif inside and indent == 4 and current:
            plain = value.strip().strip("'\"")
            flavours[current][key] = "" if plain == "null" else plain
    return flavours
