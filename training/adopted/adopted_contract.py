"""The contract of an adopted version, its adaptation, and its rows in the contract's order."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.contract import ModelContract, RequestInput, ViewUse
from features.views import View
from training.adopted.answers import REQUEST, Answers
from training.adopted.proposals import (
    ForeignColumn,
    KnownFeature,
    foreign_columns,
    served_names,
)
from training.adoption.foreign import Adaptation, ColumnSource, Feed, ForeignModel
from training.errors import AdoptionError

DICTIONARY_MAX = 10_000
SCORE = "score"
"""Name of the output of a version with one output."""


def adopted_contract(
    foreign: ForeignModel,
    answers: Answers,
    known: Sequence[KnownFeature],
    words: Mapping[str, tuple[str, ...]],
) -> ModelContract:
    """Return the contract: used features by view, then what callers send, in the columns' order.

    words  column -> its words in the sample, for columns of words that the graph does not say.

    Raises AdoptionError for a column of words without any, and ContractError when the answers
    contradict each other.
    """
    # Each column is a feature of a view, an input of the request, or a constant.
    features = {item.name: item for item in known}
    used: dict[str, dict[str, None]] = {}
    views: dict[str, View] = {}
    inputs = []
    for column in foreign_columns(foreign):
        source = answers.inputs[column.name]
        if not isinstance(source, str):
            continue
        if source == REQUEST:
            dictionary = _dictionary(column, words) if column.kind == "text" else ()
            inputs.append(RequestInput(name=column.name, dictionary=dictionary))
        else:
            item = features[source]
            views[item.view.name] = item.view
            used.setdefault(item.view.name, {})[item.feature.name] = None
    # A single output is called as those of trained versions.
    return ModelContract(
        entities=answers.entities,
        views=tuple(ViewUse(view=views[name], features=tuple(used[name])) for name in used),
        inputs=tuple(inputs),
        outputs=(SCORE,) if len(answers.serve) == 1 else answers.serve,
    )


def _dictionary(column: ForeignColumn, words: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    dictionary = column.known_texts or words.get(column.name, ())
    if not 0 < len(dictionary) <= DICTIONARY_MAX:
        raise AdoptionError(
            f"column {column.name!r} takes words, and {len(dictionary)} of them are known; the "
            f"graph does not say which. Give --sample FILE with 1 to {DICTIONARY_MAX} words, or "
            "make it a constant"
        )
    return dictionary


def adaptation_of(
    foreign: ForeignModel,
    answers: Answers,
    contract: ModelContract,
    known: Sequence[KnownFeature],
) -> Adaptation:
    """Return where each column of the foreign graph comes from, and what is served."""
    dictionaries = {item.name: item.dictionary for item in contract.inputs}
    dictionaries |= {item.name: item.feature.dictionary for item in known}
    output = next(item for item in foreign.outputs if item.name == answers.output)
    names = served_names(foreign, output)
    return Adaptation(
        columns=tuple(
            _column_source(column, answers, dictionaries) for column in foreign_columns(foreign)
        ),
        output=answers.output,
        selected=tuple(names.index(name) for name in answers.serve),
        transform=answers.transform,
    )


def _column_source(
    column: ForeignColumn, answers: Answers, dictionaries: Mapping[str, tuple[str, ...]]
) -> ColumnSource:
    source = answers.inputs[column.name]
    if not isinstance(source, str):
        constant = source["constant"]
        if (column.kind == "text") != isinstance(constant, str):
            raise AdoptionError(
                f"inputs.{column.name} has the constant {constant!r}; the column takes "
                f"{'texts' if column.kind == 'text' else 'numbers'}"
            )
        return ColumnSource(column.foreign_input, column.column, "", constant=constant)
    name = column.name if source == REQUEST else source
    if column.kind != "text":
        return ColumnSource(column.foreign_input, column.column, name)
    return ColumnSource(
        column.foreign_input,
        column.column,
        name,
        dictionary=dictionaries[name],
        unknown=answers.unknown[column.name],
        missing=answers.missing[column.name],
    )


def contract_rows(
    columns: Mapping[str, NDArray[Any]],
    foreign: ForeignModel,
    adaptation: Adaptation,
    contract: ModelContract,
) -> NDArray[np.float32]:
    """Return sample rows, (N, F) float32, in the contract's order.

    columns  column of the model -> N values (training.adopted.sample). None and NaN are missing.
    """
    names = _column_names(foreign)
    by_input = {item.model_input: item for item in reversed(adaptation.columns)}
    rows = []
    for name in contract.names:
        source = by_input[name]
        values = columns[names[source.foreign_input, source.column]]
        rows.append(_positions(values, source) if source.dictionary else _numbers(values))
    return np.stack(rows, axis=1)


def rows_of_feed(
    feed: Feed, adaptation: Adaptation, contract: ModelContract
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return rows that the library scored in the contract's order, and which of them it can say.

    A row cannot be said if a constant column has another value there, if two columns of one model
    input differ, or if a word is none of the dictionary's and stands for none of the answers.

    Returns (N, F) float32 and (N,) bool.
    """
    # A row is filled column by column; each column may make it one that no caller can send.
    count = len(next(iter(feed.values())))
    rows = np.full((count, contract.width), np.nan, dtype=np.float32)
    sayable = np.ones(count, dtype=np.bool_)
    positions = {name: index for index, name in enumerate(contract.names)}
    filled: set[int] = set()
    for source in adaptation.columns:
        values = feed[source.foreign_input][:, source.column]
        if source.constant is not None:
            sayable &= values == source.constant
            continue
        if source.dictionary:
            encoded, known = _coded(values, source)
            sayable &= known
        else:
            encoded = _numbers(values)
            # A number that float32 does not hold is another row for a gateway.
            sayable &= (encoded.astype(np.float64) == values.astype(np.float64)) | np.isnan(encoded)
        at = positions[source.model_input]
        if at in filled:
            sayable &= (rows[:, at] == encoded) | (np.isnan(rows[:, at]) & np.isnan(encoded))
        rows[:, at] = encoded
        filled.add(at)
    return rows, sayable


def _column_names(foreign: ForeignModel) -> dict[tuple[str, int], str]:
    return {(item.foreign_input, item.column): item.name for item in foreign_columns(foreign)}


def _numbers(values: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _positions(values: NDArray[Any], source: ColumnSource) -> NDArray[np.float32]:
    """Return the position of each text in the dictionary; K for others, NaN for None."""
    codes = {word: float(code) for code, word in enumerate(source.dictionary)}
    unknown = float(len(codes))
    numbers = [np.nan if text is None else codes.get(text, unknown) for text in values.tolist()]
    return np.array(numbers, dtype=np.float32)


def _coded(
    values: NDArray[Any], source: ColumnSource
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return positions of words that a graph was given, and which words have one."""
    codes: dict[str, float] = {source.unknown: float(len(source.dictionary))}
    codes[source.missing] = float("nan")
    codes |= {word: float(code) for code, word in enumerate(source.dictionary)}
    texts = values.tolist()
    known = np.array([text in codes for text in texts], dtype=np.bool_)
    return np.array([codes.get(text, np.nan) for text in texts], dtype=np.float32), known
