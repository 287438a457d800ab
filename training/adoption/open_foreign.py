"""Opens a foreign model in a sandbox and returns it as ONNX with its library's scores.

This process never unpickles, parses or runs the model. What the sandboxed child answers may be
written by the model, so every part of it is checked here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from host.sandbox.exchange import (
    MalformedMessageError,
    Message,
    pack_message,
    unpack_message,
)
from host.sandbox.run import (
    Isolation,
    NoSandboxError,
    SandboxError,
    SandboxLimits,
    SandboxTask,
    choose_isolation,
    inside_path,
    run_in_sandbox,
)
from host.text import escape_controls
from training.adoption.foreign import (
    Feed,
    ForeignInput,
    ForeignModel,
    ForeignOutput,
    InputKind,
    OutputKind,
)
from training.errors import AdoptionError

CHILD_MODULE = "training.adoption.convert.child"
ROOMS = ("host", "features", "training")
"""Rooms that the child imports."""
LIMITS = SandboxLimits()
INSIDE = "/model"

ONNX_BYTES_MAX = 256 * 1024 * 1024
"""A version's model may not be larger (registry/manifest.py)."""
TEXT_MAX = 500
SENTENCE_MAX = 2_000
WARNINGS_MAX = 50
COLUMNS_MAX = 5_000
SAMPLE_VALUES_MAX = 50_000_000
"""Rows times columns of a sample."""

Sample = Mapping[str, NDArray[Any]]
"""Name of a column of the model -> its N values: float64, int64, bool or str."""


def open_foreign(
    path: Path,
    sample: Sample,
    *,
    limits: SandboxLimits = LIMITS,
    isolation: Isolation | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> ForeignModel:
    """Return the model at *path*: a file, an MLflow folder, or a folder with a model and weights.

    sample     columns by the names that the model has for them. Empty: nothing is scored, which
               is enough to ask which columns there are.
    isolation  None chooses bubblewrap or namespaces. Isolation.NONE runs the model's code as this
               user, and only limits and the filter of system calls remain.
    progress   called with each step.

    Raises AdoptionError when the model cannot be adopted, when its code did something that the
    sandbox forbids, or when this host has no sandbox.
    """
    # What is wrong with the request needs no child.
    if not path.exists():
        raise AdoptionError(f"{path} does not exist")
    _check_sample(sample)
    if isolation is None:
        try:
            isolation = choose_isolation()
        except NoSandboxError as error:
            raise AdoptionError(
                f"{error}; or use --without-sandbox if you trust the source of {path.name}"
            ) from error
    # The child sees the file and what lies beside it under its name, or the folder.
    files, inside = _shown_files(path)
    request = Message(
        {"path": inside_path(isolation, inside, path.absolute()), "shown": path.name},
        {name: _as_sent(values) for name, values in sample.items()},
    )
    task = SandboxTask(
        module=CHILD_MODULE, packages=ROOMS, request=pack_message(request), files=files
    )
    # Whatever the child does, the user gets one sentence.
    try:
        message = unpack_message(run_in_sandbox(task, limits, isolation, progress))
        refused = message.document.get("refused")
        if refused is None:
            return _foreign_model(message)
    except SandboxError as error:
        raise AdoptionError(f"{path.name} was not opened: {error}") from error
    except MalformedMessageError as error:
        raise AdoptionError(
            f"{path.name} was not opened: the report of its child is not one that Turnout's code "
            f"writes ({error}), so the model's code may have written it"
        ) from error
    raise AdoptionError(escape_controls(str(refused)[:SENTENCE_MAX]))


def _as_sent(values: NDArray[Any]) -> NDArray[Any]:
    wide: dict[str, Any] = {"f": np.float64, "i": np.int64}
    return values.astype(wide.get(values.dtype.kind, values.dtype))


def _check_sample(sample: Sample) -> None:
    lengths = {len(values) for values in sample.values()}
    if len(lengths) > 1 or lengths == {0}:
        raise AdoptionError(f"the columns of the sample have {sorted(lengths)} rows")
    if sum(len(values) for values in sample.values()) > SAMPLE_VALUES_MAX:
        raise AdoptionError(
            f"the sample has more than {SAMPLE_VALUES_MAX} values; 10,000 rows are enough"
        )
    for name, values in sample.items():
        if values.ndim != 1 or values.dtype.kind not in "fibOUT":
            raise AdoptionError(f"column {name!r} of the sample is no column of numbers or texts")


def _shown_files(path: Path) -> tuple[dict[str, Path], str]:
    """Return what the child is shown, and where it finds the model."""
    if path.is_dir():
        return {INSIDE: path}, INSIDE
    # torch and onnx write weights into a second file, whose name begins with that of the first.
    shown = {f"{INSIDE}/{path.name}": path}
    for other in sorted(path.parent.glob(f"{_without_patterns(path.name)}*")):
        if other != path and other.is_file() and not other.is_symlink():
            shown[f"{INSIDE}/{other.name}"] = other
    return shown, f"{INSIDE}/{path.name}"


def _without_patterns(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "[]*?" else letter for letter in name)


def _foreign_model(message: Message) -> ForeignModel:
    """Return the model of an answer. Raises MalformedMessageError for what no child writes."""
    document, onnx = message.document, message.files.get("onnx", b"")
    if len(onnx) > ONNX_BYTES_MAX:
        raise AdoptionError(
            f"the graph has {len(onnx)} bytes; a version's model has at most {ONNX_BYTES_MAX}. "
            "Train fewer or smaller trees"
        )
    inputs = tuple(_input(entry) for entry in _list(document, "inputs", COLUMNS_MAX))
    outputs = tuple(_output(entry) for entry in _list(document, "outputs", COLUMNS_MAX))
    if sum(len(item.columns) for item in inputs) > COLUMNS_MAX:
        raise MalformedMessageError(f"it has more than {COLUMNS_MAX} columns")
    # Rows must fit the inputs, and scores the rows.
    rows = _rows(message, inputs)
    total = len(next(iter(rows.values()))) if rows else 0
    sample_rows = document.get("sample_rows")
    if type(sample_rows) is not int or not 0 <= sample_rows <= total:
        raise MalformedMessageError("its number of sample rows is wrong")
    return ForeignModel(
        origin=_text(document.get("origin")),
        onnx=onnx,
        inputs=inputs,
        outputs=outputs,
        rows=rows,
        sample_rows=sample_rows,
        truth=_scores(message, "truth/", outputs, total),
        truth_exact=_scores(message, "exact/", outputs, sample_rows),
        truth_by=_text(document.get("truth_by")),
        warnings=tuple(_text(text) for text in _list(document, "warnings", WARNINGS_MAX)),
    )


def _input(entry: object) -> ForeignInput:
    match entry:
        case [str() as name, str() as kind, list() as columns, list() as categories] if (
            kind in get_args(InputKind)
        ):
            return ForeignInput(
                name=_name(name),
                kind=kind,  # type: ignore[arg-type]  # checked above
                columns=tuple(_name(column) for column in columns),
                categories=tuple(
                    tuple(_name(word) for word in _as_list(known)) for known in categories
                ),
            )
    raise MalformedMessageError("it describes an input wrongly")


def _output(entry: object) -> ForeignOutput:
    match entry:
        case [str() as name, str() as kind, int() as width, list() as classes] if (
            kind in get_args(OutputKind) and width >= 0
        ):
            return ForeignOutput(
                name=_name(name),
                kind=kind,  # type: ignore[arg-type]  # checked above
                width=width,
                classes=tuple(_name(item) for item in classes),
            )
    raise MalformedMessageError("it describes an output wrongly")


def _rows(message: Message, inputs: tuple[ForeignInput, ...]) -> Feed:
    """Return the scored rows, (N, C) for each input; none when nothing was scored."""
    if not any(name.startswith("rows/") for name in message.arrays):
        return {}
    rows = {}
    for item in inputs:
        part = message.arrays.get(f"rows/{item.name}")
        if part is None or part.ndim != 2 or part.shape[1] != len(item.columns):
            raise MalformedMessageError(f"its rows do not fit the input {item.name[:80]!r}")
        if (part.dtype == object) != (item.kind == "text"):
            raise MalformedMessageError(f"its rows are not of the input's kind {item.kind}")
        rows[item.name] = part
    if len({len(part) for part in rows.values()}) != 1:
        raise MalformedMessageError("its inputs have different numbers of rows")
    return rows


def _scores(
    message: Message, prefix: str, outputs: tuple[ForeignOutput, ...], rows: int
) -> dict[str, NDArray[Any]]:
    """Return output -> (rows, K) float64 scores, of which none is needed."""
    scores = {}
    for name, part in message.arrays.items():
        if not name.startswith(prefix):
            continue
        output = name.removeprefix(prefix)
        if output not in {item.name for item in outputs}:
            raise MalformedMessageError("it scores an output that the graph has not")
        if part.ndim != 2 or len(part) != rows or part.dtype != np.float64:
            raise MalformedMessageError("its scores do not fit its rows")
        scores[output] = part
    return scores


def _list(document: dict[str, Any], key: str, most: int) -> list[Any]:
    values = _as_list(document.get(key))
    if len(values) > most:
        raise MalformedMessageError(f"its {key} are more than {most}")
    return values


def _as_list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise MalformedMessageError("it has something else where a list belongs")
    return value


def _name(value: object) -> str:
    """Return a name that the graph uses, which stays as it is."""
    if not isinstance(value, str) or len(value) > TEXT_MAX:
        raise MalformedMessageError("it has something else where a name belongs")
    return value


def _text(value: object) -> str:
    """Return a text for people, cut and safe to show."""
    if not isinstance(value, str):
        raise MalformedMessageError("it has something else where a text belongs")
    return escape_controls(value[:TEXT_MAX])
