"""Files of scores and outcomes: what is read, and how each fault is named."""

from pathlib import Path

import duckdb
import numpy as np
import pytest

from turnout.errors import OperatorError
from turnout.monitoring.import_files import (
    OutcomeRow,
    ScoreRow,
    content_digest,
    read_entity_outcome_rows,
    read_outcome_rows,
    read_score_rows,
)
from turnout.monitoring.import_parts import (
    PART_ROWS,
    edges_of_scores,
    outcomes_parts,
    scores_parts,
)

NOON_MS = 1_796_040_000_000
"""2026-11-30T12:00:00Z"""
NOW_MS = NOON_MS + 3_600_000


def write(path: Path, text: str) -> Path:
    """Write a CSV file."""
    path.write_text(text)
    return path


def write_parquet(path: Path, query: str) -> None:
    """Write the rows of a query to a Parquet file."""
    duckdb.sql(f"COPY ({query}) TO '{path}' (FORMAT parquet)")


@pytest.mark.parametrize(
    "time",
    [
        "2026-11-30T12:00:00Z",
        "2026-11-30 12:00:00",
        "2026-11-30T14:00:00+02:00",
        str(NOON_MS),
    ],
)
def test_times_are_texts_or_milliseconds(tmp_path: Path, time: str) -> None:
    """A text without a zone is UTC, and one with another zone is converted."""
    file = write(tmp_path / "s.csv", f"score,key,time\n0.25,C1,{time}\n")
    assert read_score_rows(file, NOW_MS) == [ScoreRow("C1", NOON_MS, 0.25, "", "")]


def test_parquet_gives_the_same_rows_and_digest_as_csv(tmp_path: Path) -> None:
    """Types differ, and content does not."""
    text = "key,time,score,version,prediction\nC1,2026-11-30T12:00:00Z,0.1,7,p1\n"
    csv = read_score_rows(write(tmp_path / "s.csv", text), NOW_MS)
    parquet = tmp_path / "s.parquet"
    write_parquet(
        parquet,
        "SELECT 'C1' AS key, TIMESTAMPTZ '2026-11-30 12:00:00+00' AS time, 0.1::FLOAT AS score, "
        "7 AS version, 'p1' AS prediction",
    )
    rows = read_score_rows(parquet, NOW_MS)
    assert rows == csv == [ScoreRow("C1", NOON_MS, 0.1, "7", "p1")]
    assert content_digest(rows) == content_digest(csv)
    assert content_digest(rows) != content_digest([*rows, *rows])


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("C1,2026-11-30T12:00:00Z,nan", "score is 'nan'"),
        ("C1,2026-11-30T12:00:00Z,-inf", "score is '-inf'"),
        ("C1,2026-11-30T12:00:00Z,high", "score 'high' is no number"),
        ("C1,2026-11-30T12:00:00Z,", "score '' is no number"),
        ("C1,2026-11-30T14:00:00Z,0.5", "2026-11-30T14:00:00Z is in the future"),
        ("C1,2019-01-01T00:00:00Z,0.5", "older than the five years"),
        ("C1,99999999999999999,0.5", "is in the future"),
        ("C1,yesterday,0.5", "time 'yesterday' is no time"),
        ("C1,,0.5", "time '' is no time"),
        (",2026-11-30T12:00:00Z,0.5", "an entity id is 0 bytes long"),
        ("\x07,2026-11-30T12:00:00Z,0.5", "control character"),
    ],
)
def test_bad_row_is_named_and_nothing_is_read(tmp_path: Path, row: str, fault: str) -> None:
    """The number of the row, what is wrong, and what follows."""
    good = "C1,2026-11-30T12:00:00Z,0.5"
    file = write(tmp_path / "s.csv", f"key,time,score\n{good}\n{row}\n{good}\n")
    with pytest.raises(OperatorError) as raised:
        read_score_rows(file, NOW_MS)
    text = str(raised.value)
    assert text.startswith("s.csv: 1 of 3 rows cannot be imported, and nothing was: row 2: ")
    assert fault in text


def test_many_bad_rows_are_counted(tmp_path: Path) -> None:
    """Some are named, and the message has a bound."""
    rows = "C1,2026-11-30T12:00:00Z,x\n" * 500
    with pytest.raises(OperatorError, match=r"500 of 500 rows.*row 20: .*; 480 more") as raised:
        read_score_rows(write(tmp_path / "s.csv", f"key,time,score\n{rows}"), NOW_MS)
    assert len(str(raised.value)) < 2_000


def test_file_that_is_none_is_named(tmp_path: Path) -> None:
    """A cut Parquet file, another kind, another table, no rows, and a line with too many fields."""
    whole = tmp_path / "whole.parquet"
    write_parquet(whole, "SELECT 'C1' AS key, now() AS time, 0.5 AS score FROM range(1000)")
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:-30])
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1")
    for file in (cut, broken):
        with pytest.raises(OperatorError, match="cannot be read as Parquet, and noth") as raised:
            read_score_rows(file)
        assert "SELECT" not in str(raised.value)
        assert "\n" not in str(raised.value)
    with pytest.raises(OperatorError, match=r"\.csv or \.parquet"):
        read_score_rows(write(tmp_path / "s.json", "{}"))
    with pytest.raises(OperatorError, match="has no column key, time; its columns are id, score"):
        read_score_rows(write(tmp_path / "s.csv", "id,score\n1,0.5\n"))
    with pytest.raises(OperatorError, match="has no rows"):
        read_score_rows(write(tmp_path / "e.csv", "key,time,score\n"))
    with pytest.raises(OperatorError, match="no first line with names, each once"):
        read_score_rows(write(tmp_path / "t.csv", "key,time,score,key\n"), NOW_MS)
    with pytest.raises(OperatorError, match="no first line"):
        read_score_rows(write(tmp_path / "0.csv", ""), NOW_MS)
    some = "key,time,score,prediction\nC1,1796040000000,1,p\nC2,1796040000000,1,\n"
    with pytest.raises(OperatorError, match="1 of 2 rows have no prediction"):
        read_score_rows(write(tmp_path / "p.csv", some), NOW_MS)


def test_every_line_that_is_no_row_is_named(tmp_path: Path) -> None:
    """Lines that are short, long, badly quoted or no UTF-8, and a bad row among them."""
    good = b"C1,2026-11-30T12:00:00Z,0.5\n"
    lines = (b"key,time,score\n", good, b"a,b,c,d\n", b"\n", b"C1,2026\n", b'"C"1,1,1\n')
    more = (b"\xff,1,1\n", good, b"C1,1796040000000,high\n", b'"C1,1796040000000,0.5\n')
    file = tmp_path / "s.csv"
    file.write_bytes(b"".join([*lines, *more]))
    with pytest.raises(OperatorError) as raised:
        read_score_rows(file, NOW_MS)
    text = str(raised.value)
    for part in (
        "6 of 8 rows cannot be imported, and nothing was",
        "row 2: line 3 has 4 fields; 3 were expected",
        "row 3: line 5 has 2 fields; 3 were expected",
        "row 4: line 6 cannot be read as CSV, look at its quotes",
        "row 5: line 7 is no text in UTF-8",
        "row 7: score 'high' is no number",
        "row 8: line 10 cannot be read as CSV",
    ):
        assert part in text
    assert "\n" not in text


@pytest.mark.parametrize("version", ["a b/c", "/", "-1", "v" * 65, "ä"])
def test_version_has_a_pattern(tmp_path: Path, version: str) -> None:
    """It becomes a part of a label, which commands take as one word."""
    file = write(tmp_path / "s.csv", f"key,time,score,version\nC1,1796040000000,1,{version}\n")
    with pytest.raises(OperatorError, match=r"row 1: version .* is no version; it has 1 to 64"):
        read_score_rows(file, NOW_MS)


def test_outcomes_have_a_key_or_a_prediction(tmp_path: Path) -> None:
    """Each row has one of them."""
    text = "key,prediction,time,name,value\nC1,,1796040000000,churned,1\n"
    file = write(tmp_path / "o.csv", f"{text},p9,1796040000000,churned,0\n")
    assert read_outcome_rows(file, NOW_MS) == [
        OutcomeRow("C1", "", NOON_MS, "churned", 1.0),
        OutcomeRow("", "p9", NOON_MS, "churned", 0.0),
    ]
    both = write(tmp_path / "b.csv", f"{text}C1,p9,1796040000000,churned,0\n")
    with pytest.raises(OperatorError, match="row 2: it has a key and a prediction, or neither"):
        read_outcome_rows(both, NOW_MS)
    unnamed = write(tmp_path / "n.csv", "key,time,name,value\nC1,1796040000000,,0\n")
    with pytest.raises(OperatorError, match="row 1: name ''"):
        read_outcome_rows(unnamed, NOW_MS)


NBA = ("subscriber", "offer")


@pytest.mark.parametrize(
    ("entities", "text", "ids"),
    [
        (NBA, "offer,subscriber,time,name,value\nO1,S1,1796040000000,taken,1\n", ["S1", "O1"]),
        (("subscriber",), "subscriber,time,name,value\nS1,1796040000000,taken,1\n", ["S1"]),
        (("subscriber",), "key,time,name,value\nS1,1796040000000,taken,1\n", ["S1"]),
        (("name",), "key,time,name,value\nS1,1796040000000,taken,1\n", ["S1"]),
        (
            ("key", "offer"),
            "key,offer,time,name,value\nS1,O1,1796040000000,taken,1\n",
            ["S1", "O1"],
        ),
    ],
)
def test_outcomes_by_entity_have_a_column_for_each_entity(
    tmp_path: Path, entities: tuple[str, ...], text: str, ids: list[str]
) -> None:
    """In any order, and the ids come in that of the model; also from Parquet."""
    file = write(tmp_path / "o.csv", text)
    rows = read_entity_outcome_rows(file, "nba", entities, NOW_MS)
    assert rows == [OutcomeRow("\x1f".join(ids), "", NOON_MS, "taken", 1.0)]
    parquet = tmp_path / "o.parquet"
    write_parquet(parquet, f"FROM read_csv('{file}')")
    assert read_entity_outcome_rows(parquet, "nba", entities, NOW_MS) == rows
    (part,) = outcomes_parts("nba", rows)
    assert (list(part.keys), part.entities) == (ids, len(ids))


@pytest.mark.parametrize(
    ("entities", "columns", "fault"),
    [
        (NBA, "subscriber", "has no column offer. Its columns are subscriber, time, name, value; "),
        (NBA, "key", "has no column subscriber, offer and has the surplus column key. "),
        (NBA, "subscriber,offer,shop", "has the surplus column shop. "),
        (("subscriber",), "subscriber,key", "has the surplus column key. "),
        (("subscriber",), "key,offer", "has the surplus column offer. "),
        (("subscriber",), "offer", "has no column key and has the surplus column offer. "),
        (("subscriber",), "prediction", "Outcomes by prediction id are reported to a gateway"),
        ((), "key", "'nba' has no entities, so no key finds its predictions"),
    ],
)
def test_missing_and_surplus_columns_are_named(
    tmp_path: Path, entities: tuple[str, ...], columns: str, fault: str
) -> None:
    """A column that is ignored might be an id by which somebody wants the predictions found."""
    file = write(tmp_path / "o.csv", f"{columns},time,name,value\n")
    with pytest.raises(OperatorError, match="nothing was imported: ") as raised:
        read_entity_outcome_rows(file, "nba", entities, NOW_MS)
    assert fault in str(raised.value)
    if entities:
        assert f"rows of 'nba' are keyed by {', '.join(entities)}, so they must be" in str(
            raised.value
        )


@pytest.mark.parametrize("name", ["time", "name", "value"])
def test_no_column_is_an_id_and_a_field_of_the_outcome(tmp_path: Path, name: str) -> None:
    """A single entity of such a name has the column key; of several the file can have none."""
    file = write(tmp_path / "o.csv", "time,name,value\n1796040000000,1,1\n")
    with pytest.raises(OperatorError, match=r"has no column key\. .* so they must be key, time, "):
        read_entity_outcome_rows(file, "nba", [name], NOW_MS)
    file = write(tmp_path / "o.csv", "offer,time,name,value\nO1,1796040000000,1,1\n")
    with pytest.raises(OperatorError) as raised:
        read_entity_outcome_rows(file, "nba", ["offer", name], NOW_MS)
    assert str(raised.value) == (
        f"nothing was imported: rows of 'nba' are keyed by offer, {name}, and the column {name} of "
        "the file belongs to the outcome. Report outcomes of this model by its entities to a "
        "gateway (ReportOutcome, docs/calling.md), or name the entity otherwise in its recipe"
    )


def test_bad_id_of_an_entity_is_named_with_its_column(tmp_path: Path) -> None:
    """An empty one, and one with a separator in it; nothing is read."""
    good, empty = "S1,O1,1796040000000,taken,1\n", "S1,,1796040000000,taken,1\n"
    text = f"subscriber,offer,time,name,value\n{good}{empty}S1\x1fS2,O1,1796040000000,taken,1\n"
    with pytest.raises(OperatorError) as raised:
        read_entity_outcome_rows(write(tmp_path / "o.csv", text), "nba", NBA, NOW_MS)
    assert "2 of 3 rows cannot be imported, and nothing was" in str(raised.value)
    assert "row 2: offer: an entity id is 0 bytes long" in str(raised.value)
    assert "row 3: subscriber: " in str(raised.value)


def test_parts_have_one_version_and_a_bound() -> None:
    """All rows are in one part, in order, and the numbers grow by one."""
    rows = [
        ScoreRow(f"C{number}", NOON_MS, 0.5, str(number % 2), "")
        for number in range(2 * PART_ROWS + 2)
    ]
    parts = scores_parts("nps", rows)
    assert [(part.number, part.version, len(part.keys)) for part in parts] == [
        (1, "0", PART_ROWS),
        (2, "0", 1),
        (3, "1", PART_ROWS),
        (4, "1", 1),
    ]
    assert {key for part in parts for key in part.keys} == {row.key for row in rows}
    outcomes = [
        OutcomeRow("", "p", NOON_MS, "churned", 1.0),
        OutcomeRow("C1", "", NOON_MS, "churned", 1.0),
    ]
    by_key, by_prediction = outcomes_parts("nps", outcomes)
    assert (list(by_key.keys), list(by_prediction.predictions)) == (["C1"], ["p"])
    pairs = [OutcomeRow("S1\x1fO1", "", NOON_MS, "taken", 1.0)] * (PART_ROWS // 2 + 1)
    assert [len(part.keys) for part in outcomes_parts("nba", pairs)] == [PART_ROWS, 2]


def test_edges_are_for_scores_that_are_no_probabilities() -> None:
    """Bins have about equal numbers of rows; a constant score has one edge."""
    assert edges_of_scores([0.0, 0.5, 1.0]) == []
    values = np.arange(1_000, dtype=float)
    counts = np.histogram(values, [-np.inf, *edges_of_scores(values.tolist()), np.inf])[0]
    assert len(counts) == 20
    assert counts.max() - counts.min() <= 2
    assert edges_of_scores([7.0] * 9) == [7.0]
