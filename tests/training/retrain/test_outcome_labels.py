"""Tests of labels from reported outcomes: each report finds its row, and the last one counts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from features.contract import ModelContract, RequestInput
from protos.journal_pb2 import OutcomeRecord, ServedBatch
from training.errors import LabelsError
from training.label_reader import read_labels
from training.labels import Labels
from training.retrain.outcome_labels import (
    OutcomeCounts,
    OutcomeRules,
    definition_file,
    labels_name,
    write_outcome_labels,
)

DAY_MS = 86_400_000
START_MS = 1_700_000_000_000
CONTRACT = ModelContract(
    entities=("customer",),
    inputs=(RequestInput(name="amount"), RequestInput(name="channel", dictionary=("web", "shop"))),
)
RULES = OutcomeRules(
    model="churn", outcome="left", contracts={CONTRACT.model_contract: CONTRACT}, horizon_days=30.0
)


def call_id(number: int) -> bytes:
    """The prediction id of a call."""
    return number.to_bytes(64, "little")


def served(
    calls: dict[int, list[str]],
    day: float = 0.0,
    model: str = "churn",
    inputs: list[list[float]] | None = None,
) -> ServedBatch:
    """A record of calls: number -> the customers of its rows."""
    customers = [customer for rows in calls.values() for customer in rows]
    vectors = np.zeros((len(customers), 2)) if inputs is None else np.array(inputs)
    at_ns = int(START_MS + day * DAY_MS) * 1_000_000
    return ServedBatch(
        model=model,
        at_unix_ns=np.full(len(calls), at_ns, "<i8").tobytes(),
        row_count=np.array([len(rows) for rows in calls.values()], "<u4").tobytes(),
        prediction_ids=b"".join(map(call_id, calls)),
        width=2,
        vectors=vectors.astype("<f4").tobytes(),
        entity_ids=customers,
        model_contract=CONTRACT.model_contract,
    )


def outcome(call: int | None, day: float, value: float, **fields: Any) -> OutcomeRecord:  # noqa: ANN401  the other fields
    """A report that came a day after its event."""
    at_ms = int(START_MS + day * DAY_MS)
    return OutcomeRecord(
        prediction_id=b"" if call is None else call_id(call),
        name=fields.pop("name", "left"),
        value=value,
        event_time_ms=at_ms,
        received_unix_ns=(at_ms + DAY_MS) * 1_000_000,
        **fields,
    )


def write(
    path: Path, batches: list[ServedBatch], outcomes: list[OutcomeRecord], rules: OutcomeRules
) -> tuple[OutcomeCounts, list[tuple[Any, ...]]]:
    """Write the labels; return the counts and (customer, outcome, day, day known) of each row."""
    counts = write_outcome_labels(path, batches, outcomes, rules)
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"SELECT customer, outcome, (predicted_ms - {START_MS}) / {DAY_MS}, "
            f"(known_ms - {START_MS}) / {DAY_MS} FROM '{path}'"
        ).fetchall()
    return counts, rows


def test_outcomes_find_their_rows(tmp_path: Path) -> None:
    """By prediction id and row, or by keys: then the newest row before the event counts."""
    batches = [
        served({1: ["a"], 2: ["b", "c"]}),
        served({3: ["a"]}, day=10),
        served({4: ["a"]}, day=20),
    ]
    reports = [
        outcome(2, 3, 1.0, row=1),
        outcome(1, 5, 0.0),
        outcome(None, 12, 1.0, model="churn", keys=["a"]),
    ]
    counts, rows = write(tmp_path / "labels.parquet", batches, reports, RULES)
    assert rows == [("a", 0.0, 0.0, 6.0), ("c", 1.0, 0.0, 4.0), ("a", 1.0, 10.0, 13.0)]
    assert counts == OutcomeCounts(
        labels=3, positives=2, reports=3, replaced=0, unmatched=0, late=0, absent=0, waiting=0
    )


def test_last_report_of_a_row_counts_and_the_others_are_counted(tmp_path: Path) -> None:
    """A correction, a report that two gateways kept, an unknown call, a late one, another model."""
    batches = [served({1: ["a"], 2: ["b"], 5: ["e"]}), served({9: ["z"]}, model="offer")]
    reports = [
        outcome(1, 5, 1.0),
        outcome(1, 4, 0.0),
        outcome(1, 5, 1.0),
        outcome(7, 5, 1.0),
        outcome(2, 31, 1.0),
        outcome(9, 2, 1.0),
        outcome(5, 2, 1.0, name="bought"),
    ]
    counts, rows = write(tmp_path / "labels.parquet", batches, reports, RULES)
    assert rows == [("a", 1.0, 0.0, 6.0)]
    assert counts == OutcomeCounts(
        labels=1, positives=1, reports=5, replaced=2, unmatched=1, late=1, absent=0, waiting=0
    )


def test_absent_outcome_is_a_no_after_the_horizon(tmp_path: Path) -> None:
    """Before its end an outcome may come, and a late outcome is none."""
    batches = [served({1: ["a"], 2: ["b"]}), served({3: ["c"]}, day=20)]
    reports = [outcome(1, 29, 1.0), outcome(2, 33, 1.0)]
    rules = replace(RULES, absent_is_no=True)
    counts, rows = write(tmp_path / "labels.parquet", batches, reports, rules)
    assert rows == [("a", 1.0, 0.0, 30.0), ("b", 0.0, 0.0, 30.0)]
    assert (counts.absent, counts.waiting, counts.late) == (1, 1, 1)


def test_request_inputs_are_those_of_the_call(tmp_path: Path) -> None:
    """Codes become texts again, and what was missing is missing."""
    inputs = [[12.5, 1.0], [np.nan, 2.0], [7.0, np.nan]]
    batches = [served({1: ["a", "b", "c"]}, inputs=inputs)]
    path = tmp_path / "labels.parquet"
    write(path, batches, [outcome(1, 1, float(row), row=row) for row in range(3)], RULES)
    with duckdb.connect() as connection:
        rows = connection.execute(f"SELECT amount, channel FROM '{path}'").fetchall()
    assert rows[0] == (12.5, "shop")
    assert rows[1:] == [(None, "(unknown)"), (7.0, None)]


def test_declaration_reads_what_was_written(tmp_path: Path) -> None:
    """The file of the project is run as it is, and its labels give the rows."""
    name = labels_name("churn-eu", "Left 30")
    assert name == "churn_eu_left_30"
    batches = [served({number: [f"c{number}"]}) for number in range(4)]
    reports = [outcome(number, 1, number % 2) for number in range(4)]
    reports.append(outcome(0, 40, 0.0))
    write(tmp_path / "data" / f"{name}.parquet", batches, reports, replace(RULES, horizon_days=0))

    found: dict[str, Any] = {}
    exec(definition_file(RULES, name, f"data/{name}.parquet"), found)
    declared = found[name]
    assert isinstance(declared, Labels)
    assert (declared.horizon_days, declared.inputs) == (30.0, ("amount", "channel"))
    rows = read_labels(declared, root=tmp_path)
    assert rows.ids == {"customer": ["c0", "c1", "c2", "c3"]}
    assert rows.positive.tolist() == [False, True, False, True]
    assert (rows.immature, rows.known_until_ms) == (0, START_MS + 41 * DAY_MS)


@pytest.mark.parametrize(
    ("reports", "words"),
    [
        ([], "no outcome 'left' of 'churn' is reported.*none at all"),
        ([outcome(1, 2, 1.0, name="bought")], r"all models in them are \['bought'\]"),
        ([outcome(8, 2, 1.0)], "none of 1 reports of 'left' gives a label: 1 have no served row"),
    ],
)
def test_outcomes_without_labels_are_refused(
    reports: list[OutcomeRecord], words: str, tmp_path: Path
) -> None:
    """The file stays as it was."""
    path = tmp_path / "labels.parquet"
    path.write_bytes(b"before")
    with pytest.raises(LabelsError, match=words):
        write_outcome_labels(path, [served({1: ["a"]})], reports, RULES)
    assert path.read_bytes() == b"before"


def test_names_that_the_labels_need_are_refused(tmp_path: Path) -> None:
    """A column cannot be two things."""
    taken = replace(CONTRACT, entities=("known_ms",))
    rules = replace(RULES, contracts={taken.model_contract: taken})
    with pytest.raises(LabelsError, match="is named 'known_ms', which is a column of these labels"):
        write_outcome_labels(tmp_path / "labels.parquet", [], [], rules)
    without = replace(CONTRACT, entities=())
    rules = replace(RULES, contracts={without.model_contract: without})
    with pytest.raises(LabelsError, match="names no entity"):
        write_outcome_labels(tmp_path / "labels.parquet", [], [], rules)
