"""Makes labels of reported outcomes: each belongs to a row that a gateway has served.

An outcome with a prediction id belongs to the row of that call. An outcome with keys belongs to the
newest row of these keys before the event. The instant of a label is that of the served row, and the
label is known from the instant of its report on. Of several reports about one row the last counts,
so a correction replaces what it corrects, and a report that two gateways have kept counts once.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from features.contract import ModelContract, RequestInput
from features.replay.served_rows import NS_PER_MS
from features.storage.database import identifier, open_duckdb, quoted
from host.clock import DAY_MS
from host.files import replacing_file
from journal.prediction_id import LENGTH
from protos.journal_pb2 import OutcomeRecord, ServedBatch
from training.errors import LabelsError

RECORDS_AT_ONCE = 20_000
VALUE = "outcome"
INSTANT = "predicted_ms"
KNOWN = "known_ms"
UNKNOWN_WORD = "(unknown)"
"""Stands for a text that the dictionary of a request input does not have."""
NEWEST_SQL = (
    f"SELECT greatest((SELECT max(_known_ms) FROM reports), (SELECT max({INSTANT}) FROM served))"
)
"""The newest instant that the journals know, Unix ms."""
Columns = dict[str, list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRules:
    """Which outcomes become which labels.

    model         name of the model.
    outcome       name of the outcome, as it is reported.
    contracts     model contract (hex) -> contract, of the versions whose rows count. All have the
                  same entities and request inputs.
    horizon_days  an outcome later than so many days after its prediction is none; 0: no bound.
    absent_is_no  whether a row without an outcome is a label 0 once its horizon is over.
    """

    model: str
    outcome: str
    contracts: Mapping[str, ModelContract]
    horizon_days: float = 0.0
    absent_is_no: bool = False

    @property
    def contract(self) -> ModelContract:
        """One of the contracts, for entities and request inputs."""
        return next(iter(self.contracts.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeCounts:
    """What became of the reports.

    labels     rows that were written, of which *positives* are not 0.
    reports    reports of this outcome about the model, or about no model that is known.
    replaced   reports about a row for which a later one counts.
    unmatched  reports without a served row: its journal was deleted, or lies on another host.
    late       reports after the horizon.
    absent     labels 0 of rows without an outcome.
    waiting    rows without an outcome whose horizon is not over.
    """

    labels: int
    positives: int
    reports: int
    replaced: int
    unmatched: int
    late: int
    absent: int
    waiting: int


def write_outcome_labels(
    path: Path,
    served: Iterable[ServedBatch],
    outcomes: Iterable[OutcomeRecord],
    rules: OutcomeRules,
    *,
    spill: Path | None = None,
) -> OutcomeCounts:
    """Write the Parquet file *path* with a row for each label, and return what became of reports.

    Its columns are the entities, `outcome`, `predicted_ms`, `known_ms` and the request inputs. The
    same journals give the same rows in the same order. Journals of any size keep within the memory
    of DuckDB.

    Raises LabelsError when no report has the outcome's name, or no label comes of it; then the file
    stays as it was.
    """
    # A column cannot be two things.
    taken = [name for name in (VALUE, INSTANT, KNOWN) if _columns(rules).count(name) > 1]
    if taken or not rules.contract.entities:
        raise LabelsError(
            f"an entity or a request input of {rules.model!r} is named {taken[0]!r}, which is a "
            "column of these labels"
            if taken
            else f"{rules.model!r} names no entity, so no label of it finds any features"
        )
    with open_duckdb(spill, on_disk=True) as connection:
        # Reports and served rows become tables.
        _load_outcomes(connection, outcomes, rules)
        _load_served(connection, served, rules)
        # Each report finds its row, and the last report of a row counts.
        for statement in _match_sql(rules):
            connection.execute(statement).fetchall()
        counts = _counts(connection, rules)
        if not counts.labels:
            raise LabelsError(
                f"none of {counts.reports:,} reports of {rules.outcome!r} gives a label: "
                f"{counts.unmatched:,} have no served row in these journals, {counts.late:,} came "
                "after the horizon; name the folder with the journals of every gateway"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(path) as part:
            order = ", ".join([INSTANT, *map(identifier, rules.contract.entities), "_call", "_row"])
            columns = ", ".join(map(identifier, _columns(rules)))
            connection.execute(
                f"COPY (SELECT {columns} FROM labels ORDER BY {order}) TO {quoted(str(part))} "
                "(FORMAT parquet)"
            ).fetchall()
    return counts


def definition_file(rules: OutcomeRules, name: str, location: str) -> str:
    """Return the Python file of a project that declares the labels in the file *location*.

    name  of the labels, and of the variable.
    """
    inputs = tuple(item.name for item in rules.contract.inputs)
    lines = [
        f'"""The outcome {rules.outcome} of predictions of {rules.model}, as it was reported."""',
        "",
        "from turnout.define import Labels, Source",
        "",
        f"{name} = Labels(",
        f"    name={name!r},",
        f"    entities={rules.contract.entities!r},",
        f"    source=Source.files({location!r}, time={INSTANT!r}, created={KNOWN!r}, unit='ms'),",
        f"    value={VALUE!r},",
        *([f"    inputs={inputs!r},"] if inputs else []),
        *([f"    horizon_days={rules.horizon_days:g},"] if rules.horizon_days else []),
        ")",
        "",
    ]
    return "\n".join(lines).replace("'", '"')


def labels_name(model: str, outcome: str) -> str:
    """Return a name of labels for an outcome of a model, in the letters that a name may have."""
    text = re.sub(r"[^a-z0-9_]+", "_", f"{model}_{outcome}".lower()).strip("_")
    return (text if text[:1].isalpha() else f"labels_{text}")[:64]


def _columns(rules: OutcomeRules) -> list[str]:
    return [
        *rules.contract.entities,
        VALUE,
        INSTANT,
        KNOWN,
        *(item.name for item in rules.contract.inputs),
    ]


def _load_outcomes(
    connection: duckdb.DuckDBPyConnection, outcomes: Iterable[OutcomeRecord], rules: OutcomeRules
) -> None:
    """Make the table `reports`. Raises LabelsError when no report has the outcome's name."""
    connection.execute(
        "CREATE TABLE reports (_call VARCHAR, _row BIGINT, _keys VARCHAR, _value DOUBLE, "
        "_event_ms BIGINT, _known_ms BIGINT, _place BIGINT)"
    )
    # Reports arrive one by one, and are stored many at once.
    names: set[str] = set()
    waiting: Columns = _empty_reports()
    place = 0
    for record in outcomes:
        names.add(record.name)
        # A report with keys names its model. One with a prediction id finds it by its row.
        if record.name != rules.outcome or (record.model and record.model != rules.model):
            continue
        place += 1
        known_ms = record.received_unix_ns // NS_PER_MS
        waiting["_call"].append(record.prediction_id.hex())
        waiting["_row"].append(record.row)
        waiting["_keys"].append("\x1f".join(record.keys))
        waiting["_value"].append(record.value)
        waiting["_event_ms"].append(record.event_time_ms or known_ms)
        waiting["_known_ms"].append(known_ms)
        waiting["_place"].append(place)
        if len(waiting["_call"]) == RECORDS_AT_ONCE:
            _insert(connection, "reports", waiting)
            waiting = _empty_reports()
    _insert(connection, "reports", waiting)
    if not place:
        raise LabelsError(
            f"no outcome {rules.outcome!r} of {rules.model!r} is reported in these journals; the "
            f"outcomes of all models in them are {sorted(names) or 'none at all'}"
        )


def _empty_reports() -> Columns:
    names = ("_call", "_row", "_keys", "_value", "_event_ms", "_known_ms", "_place")
    return {name: [] for name in names}


def _load_served(
    connection: duckdb.DuckDBPyConnection, served: Iterable[ServedBatch], rules: OutcomeRules
) -> None:
    """Make the tables `served`, the rows of the model, and `others`, the calls of other models."""
    texts = [*rules.contract.entities, *(i.name for i in rules.contract.inputs if i.dictionary)]
    numbers = [item.name for item in rules.contract.inputs if not item.dictionary]
    declared = [f"{identifier(name)} VARCHAR" for name in texts]
    declared += [f"{identifier(name)} DOUBLE" for name in numbers]
    connection.execute(
        f"CREATE TABLE served (_call VARCHAR, _row BIGINT, _keys VARCHAR, {INSTANT} BIGINT, "
        f"{', '.join(declared)})"
    )
    connection.execute("CREATE TABLE others (_call VARCHAR)")
    for batch in served:
        calls = _calls(batch)
        contract = rules.contracts.get(batch.model_contract)
        if batch.model != rules.model:
            _insert(connection, "others", {"_call": calls})
        elif contract is not None:
            _insert(connection, "served", _served_columns(batch, calls, contract))


def _calls(batch: ServedBatch) -> list[str]:
    ids = batch.prediction_ids
    return [ids[start : start + LENGTH].hex() for start in range(0, len(ids), LENGTH)]


def _served_columns(batch: ServedBatch, calls: Sequence[str], contract: ModelContract) -> Columns:
    """Return the columns of `served` for the rows of one batch."""
    row_count = np.frombuffer(batch.row_count, dtype="<u4")
    call_of_row = np.repeat(np.arange(len(row_count)), row_count)
    first_row = np.cumsum(row_count) - row_count
    at_ms = np.frombuffer(batch.at_unix_ns, dtype="<i8") // NS_PER_MS
    rows = len(call_of_row)
    ids = np.array(batch.entity_ids, dtype=object).reshape(rows, len(contract.entities))
    columns: Columns = {
        "_call": [calls[call] for call in call_of_row.tolist()],
        "_row": (np.arange(rows) - first_row[call_of_row]).tolist(),
        "_keys": ["\x1f".join(keys) for keys in ids.tolist()],
        INSTANT: at_ms[call_of_row].tolist(),
    }
    for position, entity in enumerate(contract.entities):
        columns[entity] = ids[:, position].tolist()
    # Request inputs stand behind the stored features, as the model was given them.
    vectors = np.frombuffer(batch.vectors, dtype="<f4").reshape(rows, batch.width)
    start = sum(len(use.features) for use in contract.views)
    for position, item in enumerate(contract.inputs, start=start):
        columns[item.name] = _input_values(item, vectors[:, position].astype(np.float64))
    return columns


def _input_values(item: RequestInput, values: np.ndarray[Any, Any]) -> list[Any]:
    """Return numbers, of which NaN is missing, or the texts of their codes."""
    if not item.dictionary:
        return list(values.tolist())
    words = dict(enumerate(item.dictionary))
    return [None if v != v else words.get(v, UNKNOWN_WORD) for v in values.tolist()]


def _insert(connection: duckdb.DuckDBPyConnection, table: str, columns: Columns) -> None:
    if not columns["_call"]:
        return
    # Texts are objects, of which None is missing; numbers have a type, and NaN is missing.
    arrays = {
        name: np.array(values, dtype=object if isinstance(values[0], str | None) else None)
        for name, values in columns.items()
    }
    connection.register("arrived", arrays)
    names = ", ".join(map(identifier, columns))
    connection.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM arrived").fetchall()
    connection.unregister("arrived")


def _match_sql(rules: OutcomeRules) -> Iterator[str]:
    """Yield the statements that make the tables `found`, `decided` and `labels`."""
    horizon_ms = round(rules.horizon_days * DAY_MS)
    in_time = f"_event_ms <= {INSTANT} + {horizon_ms:d}" if horizon_ms else "true"
    # A report by keys is about the newest row of these keys before the event.
    yield "CREATE VIEW by_keys AS SELECT * FROM reports WHERE _call = ''"
    yield f"""
        CREATE TABLE found AS
        SELECT served.*, _value, _event_ms, _known_ms, _place
        FROM reports JOIN served ON reports._call = served._call AND reports._row = served._row
        WHERE reports._call <> ''
        UNION ALL
        SELECT served.*, _value, _event_ms, _known_ms, _place
        FROM by_keys ASOF JOIN served
        ON by_keys._keys = served._keys AND by_keys._event_ms >= served.{INSTANT}"""
    # Of the reports about one row that came in time, the last counts.
    yield f"""
        CREATE TABLE decided AS SELECT * FROM found WHERE {in_time}
        QUALIFY 1 = row_number() OVER (
            PARTITION BY _call, _row ORDER BY _known_ms DESC, _place DESC)"""
    chosen = _label_sql(rules, "_value", "_known_ms")
    yield f"CREATE TABLE labels AS SELECT {chosen} FROM decided"
    # A row without an outcome says no, once nothing more can come.
    if rules.absent_is_no:
        over_ms = f"{INSTANT} + {horizon_ms:d}"
        chosen = _label_sql(rules, "0.0", over_ms)
        yield "CREATE TABLE absent AS SELECT * FROM served ANTI JOIN decided USING (_call, _row)"
        yield f"INSERT INTO labels SELECT {chosen} FROM absent WHERE {over_ms} <= ({NEWEST_SQL})"


def _label_sql(rules: OutcomeRules, value: str, known: str) -> str:
    """Return the columns of a label as SQL, in the order of `_columns`, and its place in a call."""
    columns = [*map(identifier, rules.contract.entities), f"{value} AS {VALUE}", INSTANT]
    columns += [f"{known} AS {KNOWN}", *(identifier(item.name) for item in rules.contract.inputs)]
    return ", ".join([*columns, "_call", "_row"])


def _counts(connection: duckdb.DuckDBPyConnection, rules: OutcomeRules) -> OutcomeCounts:
    def number(sql: str) -> int:
        return int(connection.execute(sql).fetchall()[0][0])

    matched = number("SELECT count(*) FROM found")
    reports = number("SELECT count(*) FROM reports ANTI JOIN others USING (_call)")
    decided = number("SELECT count(*) FROM decided")
    labels = number("SELECT count(*) FROM labels")
    horizon_ms = round(rules.horizon_days * DAY_MS)
    in_time = (
        number(f"SELECT count(*) FROM found WHERE _event_ms <= {INSTANT} + {horizon_ms:d}")
        if horizon_ms
        else matched
    )
    absent = number("SELECT count(*) FROM absent") if rules.absent_is_no else 0
    return OutcomeCounts(
        labels=labels,
        positives=number(f"SELECT count(*) FROM labels WHERE {VALUE} <> 0"),
        reports=reports,
        replaced=in_time - decided,
        unmatched=reports - matched,
        late=matched - in_time,
        absent=labels - decided,
        waiting=absent - (labels - decided),
    )
