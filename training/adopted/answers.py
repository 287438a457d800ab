"""The answers that adoption needs beside the foreign file, and the TOML file that keeps them.

`models/churn.adopt.toml`:

    file = "churn.pkl"
    output = "probabilities"
    serve = ["yes"]
    task = "binary"
    transform = "none"

    [inputs]
    tenure = "usage:tenure"
    plan = "request"
    currency = { constant = "EUR" }

    [unknown]
    plan = "other"

    [missing]
    plan = ""
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from training.adoption.foreign import Transform
from training.errors import AdoptionError

Task = Literal["binary", "multiclass", "regression", "ranking", "anomaly"]

TASKS: tuple[Task, ...] = get_args(Task)
TRANSFORMS = ("none", "sigmoid", "softmax")
REQUEST = "request"
"""Source of a column that callers send."""
KEYS = (
    "file",
    "output",
    "serve",
    "task",
    "transform",
    "threshold",
    "entities",
    "inputs",
    "unknown",
    "missing",
)
TABLES = ("inputs", "unknown", "missing")
NUMBERS = ("threshold",)

Constant = float | str
Source = str | Mapping[str, Constant]
"""`view:feature`, REQUEST, or {"constant": value}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """How a foreign model becomes a version.

    inputs     column of the foreign model -> where its values come from.
    output     the foreign output that is served.
    serve      its classes or columns that are served, in order.
    threshold  score from which on a row counts as positive; None: 0.5 for probabilities, and the
               sample's median score for other values.
    entities   ids that callers send with each row, in order.
    unknown    column of words -> the word that stands for words outside of its dictionary.
    missing    column of words -> the word that stands for a missing value.
    """

    inputs: Mapping[str, Source]
    output: str
    serve: tuple[str, ...]
    task: Task
    transform: Transform = "none"
    threshold: float | None = None
    entities: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def definition(self) -> dict[str, Any]:
        """Return the answers as JSON values, for the file and the card."""
        return {
            "output": self.output,
            "serve": list(self.serve),
            "task": self.task,
            "transform": self.transform,
            **({} if self.threshold is None else {"threshold": self.threshold}),
            "entities": list(self.entities),
            "inputs": {
                name: source if isinstance(source, str) else dict(source)
                for name, source in self.inputs.items()
            },
            "unknown": dict(self.unknown),
            "missing": dict(self.missing),
        }


def read_answers(text: str, shown: str) -> dict[str, Any]:
    """Return the answers in a TOML file as far as it gives them.

    Raises AdoptionError, which names the file as *shown*.
    """
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AdoptionError(f"{shown} is not TOML: {error}") from error
    return checked_answers(given, shown)


def parse_option(text: str) -> dict[str, Any]:
    """Return the answers of one option KEY=VALUE, such as `serve=yes` or `inputs.age=request`.

    KEY is as in the file, with dots between table and name. Raises AdoptionError.
    """
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    wrong = AdoptionError(
        f"{text!r} is no answer; write KEY=VALUE as in the file, such as serve=yes or "
        "inputs.age=request"
    )
    if not (key and equals):
        raise wrong
    # A list, a quoted text and a number are written as in the file. The rest is a text.
    is_toml = value[:1] in ("[", "{", '"', "'") or key in NUMBERS
    shown = value if is_toml else _toml_text(value)
    try:
        return tomllib.loads(f"{key} = {shown}")
    except tomllib.TOMLDecodeError as error:
        raise wrong from error


def merged_answers(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return all answers of *parts*; a later part wins, and tables are merged by name."""
    merged: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if key in TABLES and isinstance(value, Mapping):
                known = merged.get(key)
                merged[key] = {**(known if isinstance(known, Mapping) else {}), **value}
            else:
                merged[key] = value
    return checked_answers(merged, "the answers")


def checked_answers(given: Mapping[str, Any], shown: str) -> dict[str, Any]:
    """Return *given* with texts where the file may have numbers.

    Raises AdoptionError for a key that is not known, and for a value of the wrong type.
    """
    unknown = sorted(given.keys() - set(KEYS))
    if unknown:
        raise AdoptionError(f"{shown} has {unknown}, which is not known; there are {list(KEYS)}")
    checked = dict(given)
    # Lists of names. A single name is a list of one.
    for key in ("serve", "entities"):
        if key in checked:
            values = checked[key] if isinstance(checked[key], list) else [checked[key]]
            checked[key] = [_text(value, key, shown) for value in values]
    for key in ("file", "output", "task", "transform"):
        if key in checked:
            checked[key] = _text(checked[key], key, shown)
    for key, choices in (("task", TASKS), ("transform", TRANSFORMS)):
        if key in checked and checked[key] not in choices:
            raise AdoptionError(f"{shown}: {key} = {checked[key]!r}; it is one of {list(choices)}")
    for key in NUMBERS:
        if key in checked and not _is_number(checked[key]):
            raise AdoptionError(f"{shown}: {key} = {checked[key]!r}; it is a number")
    _check_tables(checked, shown)
    return checked


def _check_tables(checked: dict[str, Any], shown: str) -> None:
    for key in TABLES:
        table = checked.get(key, {})
        if key in checked and not isinstance(table, Mapping):
            # One word for all columns is a table for any name.
            if key == "inputs":
                raise AdoptionError(f"{shown}: inputs is a table of column = source")
            checked[key] = _text(table, key, shown)
            continue
        for name, value in table.items():
            if key == "inputs" and isinstance(value, Mapping):
                constant = value.get("constant")
                known = value.keys() == {"constant"}
                if not known or not (isinstance(constant, str) or _is_number(constant)):
                    raise AdoptionError(
                        f"{shown}: inputs.{name} = {dict(value)}; a constant is "
                        '{ constant = 3 } or { constant = "word" }'
                    )
            elif not isinstance(value, str):
                raise AdoptionError(f"{shown}: {key}.{name} = {value!r}; it is a text in quotes")


def _text(value: object, key: str, shown: str) -> str:
    if isinstance(value, str | int | float):
        return str(value)
    raise AdoptionError(f"{shown}: {key} = {value!r}; it is a text or a list of texts")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def answers_toml(answers: Answers, *, model: str, file: str) -> str:
    """Return the text of the file that keeps *answers*.

    file  name of the foreign file.
    """
    values = answers.definition()
    lines = [
        f"# How {file} becomes a version of {model}. `turnout adopt {model} FILE` reads this file",
        "# and asks nothing that it answers.",
        f"file = {_toml_text(file)}",
    ]
    # Simple values first: whatever follows a table's head belongs to the table.
    lines += [
        f"{key} = {_toml(values[key])}" for key in KEYS if key in values and key not in TABLES
    ]
    heads = {
        "inputs": '# column of the model = "view:feature", "request" or { constant = 3 }',
        "unknown": "# column = the word for words outside of its dictionary",
        "missing": "# column = the word for a missing value",
    }
    for table, comment in heads.items():
        if values[table]:
            lines += ["", f"[{table}]", comment]
            lines += [f"{_toml_text(name)} = {_toml(item)}" for name, item in values[table].items()]
    return "\n".join([*lines, ""])


def answered(given: Mapping[str, Any], key: str, name: str) -> str | None:
    """Return the answer for column *name* in a table, which may be one word for all columns."""
    table = given.get(key)
    return table if isinstance(table, str) else cast("str | None", (table or {}).get(name))


def _toml(value: object) -> str:
    if isinstance(value, str):
        return _toml_text(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)


def _toml_text(text: str) -> str:
    """Return *text* in quotes. JSON escapes what TOML escapes, except DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
