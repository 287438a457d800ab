"""One adoption: open the file, complete the answers, prove the graph, write the version."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.contract import ModelContract
from host.sandbox.run import Isolation
from training.adopted.adopted_contract import adaptation_of, adopted_contract, contract_rows
from training.adopted.adopted_files import Provenance, adopted_files, decision_threshold
from training.adopted.answers import REQUEST, Answers
from training.adopted.proposals import ForeignColumn, KnownFeature, foreign_columns
from training.adopted.proven_graph import ProvenGraph
from training.adopted.sample import distinct_texts, made_sample, read_sample, sample_columns
from training.adopted.sample_metrics import sample_metrics
from training.adopted.sandboxed_facts import facts_in_sandbox
from training.adopted.sandboxed_proof import prove_in_sandbox
from training.adoption.foreign import Adaptation, ForeignModel
from training.errors import AdoptionError
from training.evaluation.metrics import Estimate
from turnout.adoption.view_rows import newest_rows

Open = Callable[[Path, Mapping[str, NDArray[Any]]], ForeignModel]
"""Opens a foreign file in the sandbox; with a sample its library scores the sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptionOrder:
    """What to adopt.

    file     the foreign file or folder.
    known    features that columns may come from.
    sample   file with sample rows; None: the views' newest rows, or made-up rows.
    label    column of *sample* with the outcomes; "" for none.
    offline    folder of the offline store.
    isolation  of the child in which the graph is run; None chooses one.
    """

    model: str
    file: Path
    known: Sequence[KnownFeature]
    sample: Path | None = None
    label: str = ""
    offline: Path = Path()
    isolation: Isolation | None = None
    commit: str = "unknown"


@dataclass(frozen=True, eq=False, slots=True)
class AdoptedVersion:
    """A version that was made, and what is told of it.

    sample   a sentence on where the sample rows come from.
    inputs   request inputs of the first sample row, for a first prediction.
    """

    files: dict[str, bytes]
    foreign: ForeignModel
    contract: ModelContract
    proven: ProvenGraph
    metrics: dict[str, Estimate]
    sample: str
    rows: int
    inputs: dict[str, float | str]


@dataclass(frozen=True, eq=False, slots=True)
class _Sample:
    """Sample rows by column of the model, where they come from, and their outcomes."""

    columns: dict[str, NDArray[Any]]
    sentence: str
    labels: NDArray[Any] | None = None
    is_real: bool = False
    """Whether no part of a row is made up."""


def adopt_file(
    order: AdoptionOrder,
    foreign: ForeignModel,
    answers: Answers,
    open_again: Open,
    progress: Callable[[str], None],
) -> AdoptedVersion:
    """Make a version of *foreign*, which was opened without a sample, by complete answers.

    Raises AdoptionError, ContractError, LabelsError and SourceError.
    """
    # Sample rows decide words that the graph does not say, so they come first.
    progress("sample")
    sample, contract = _sample(order, foreign, answers)
    adaptation = adaptation_of(foreign, answers, contract, order.known)
    rows = contract_rows(sample.columns, foreign, adaptation, contract)
    # The library scores the sample rows, as callers can send them.
    if foreign.truth_by:
        progress(f"scores by {foreign.truth_by}")
        given = _library_sample(sample.columns, foreign, answers, adaptation)
        foreign = open_again(order.file, given)
    progress("adapt and certify")
    proven = prove_in_sandbox(
        foreign,
        adaptation,
        contract,
        rows,
        sample.columns,
        threshold=0.5 if answers.threshold is None else answers.threshold,
        isolation=order.isolation,
    )
    metrics: dict[str, Estimate] = {}
    if sample.labels is not None:
        progress("metrics")
        threshold = decision_threshold(answers, proven.scores)
        metrics = sample_metrics(sample.labels, proven.scores, answers, threshold=threshold)
    # The files, whose card says where all of it comes from.
    provenance = Provenance(
        file=order.file.name,
        file_sha256=foreign_digest(order.file),
        sample=sample.sentence,
        is_real=sample.is_real,
        commit=order.commit,
    )
    progress("try explanations")
    describe = partial(_facts, order, contract, sample.is_real)
    files = adopted_files(
        order.model, foreign, answers, contract, proven, rows, provenance, metrics, describe
    )
    return AdoptedVersion(
        files=files,
        foreign=foreign,
        contract=contract,
        proven=proven,
        metrics=metrics,
        sample=sample.sentence,
        rows=len(rows),
        inputs=_first_inputs(contract, rows),
    )


def _facts(
    order: AdoptionOrder,
    contract: ModelContract,
    is_real: bool,
    files: Mapping[str, bytes],
    rows: NDArray[np.float32],
) -> dict[str, Any]:
    """Return the card's facts of the version's graph, from a sandboxed child."""
    return facts_in_sandbox(
        order.model, files, contract.names, rows, is_real=is_real, isolation=order.isolation
    )


def _sample(
    order: AdoptionOrder, foreign: ForeignModel, answers: Answers
) -> tuple[_Sample, ModelContract]:
    """Return the sample, and the contract with the words that only the sample knows."""
    columns = foreign_columns(foreign)
    # A file has the words of texts, and outcomes.
    if order.sample is not None:
        table = read_sample(order.sample)
        labels = _labels(order, table)
        table = {name: values for name, values in table.items() if name != order.label}
        found = sample_columns(table, columns, answers)
        texts = [item.name for item in columns if item.kind == "text"]
        words = {name: distinct_texts(found[name]) for name in texts}
        count = len(next(iter(found.values())))
        sentence = f"{count:,} rows of {order.sample.name}"
        contract = adopted_contract(foreign, answers, order.known, words)
        return _Sample(found, sentence, labels, is_real=True), contract
    # Without a file the views give rows, and what callers send is made up.
    contract = adopted_contract(foreign, answers, order.known, {})
    made = made_sample(foreign.onnx, columns, answers)
    stored = newest_rows(contract, order.offline)
    if not stored:
        sentence = (
            f"{len(next(iter(made.values()))):,} made-up rows: values at the thresholds of trees "
            "and known words. No row is real"
        )
        return _Sample(made, sentence), contract
    count = len(next(iter(stored.values())))
    made = {name: np.resize(values, count) for name, values in made.items()}
    table = {**{n: v for n, v in made.items() if answers.inputs[n] == REQUEST}, **stored}
    views = ", ".join(use.view.name for use in contract.views)
    rest = "; what callers send is made up" if contract.inputs else ""
    sentence = f"the {count:,} newest rows of {views}{rest}"
    rows = sample_columns(table, columns, answers)
    return _Sample(rows, sentence, is_real=not contract.inputs), contract


def _labels(order: AdoptionOrder, table: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
    if not order.label:
        return None
    if order.label not in table:
        raise AdoptionError(
            f"the sample has no column {order.label!r} for --label; it has {list(table)[:10]}"
        )
    return table[order.label]


def _library_sample(
    columns: Mapping[str, NDArray[Any]],
    foreign: ForeignModel,
    answers: Answers,
    adaptation: Adaptation,
) -> dict[str, NDArray[Any]]:
    """Return the sample as the library gets it: words for missing and unknown texts."""
    dictionaries = {
        (item.foreign_input, item.column): item.dictionary for item in adaptation.columns
    }
    given: dict[str, NDArray[Any]] = {}
    names = {
        (item.name, index): name
        for item in foreign.inputs
        for index, name in enumerate(item.columns)
    }
    for column in foreign_columns(foreign):
        values = columns[column.name]
        key = (column.foreign_input, column.column)
        given[names[key]] = _for_library(column, values, dictionaries[key], answers)
    return given


def _for_library(
    column: ForeignColumn,
    values: NDArray[Any],
    dictionary: tuple[str, ...],
    answers: Answers,
) -> NDArray[Any]:
    if column.kind == "text":
        known = set(dictionary)
        missing = answers.missing.get(column.name, "")
        unknown = answers.unknown.get(column.name, "")
        return np.array(
            [
                missing if text is None else text if not known or text in known else unknown
                for text in values.tolist()
            ],
            dtype=object,
        )
    if column.kind in ("integer", "boolean"):
        whole = np.nan_to_num(values.astype(np.float64))
        return whole.astype(np.int64) if column.kind == "integer" else whole != 0
    return values.astype(np.float64)


def _first_inputs(contract: ModelContract, rows: NDArray[np.float32]) -> dict[str, float | str]:
    """Return the request inputs of the first row, by name, without missing ones."""
    start = len(contract.names) - len(contract.inputs)
    sent: dict[str, float | str] = {}
    for item, value in zip(contract.inputs, rows[0, start:].tolist(), strict=True):
        if item.dictionary and value == value and value < len(item.dictionary):
            sent[item.name] = item.dictionary[int(value)]
        elif not item.dictionary and np.isfinite(value):
            sent[item.name] = value
    return sent


def foreign_digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a file; of a folder that of the names and files in it."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    for file in files:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        digest.update(file.read_bytes())
    return digest.hexdigest()
