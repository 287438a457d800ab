"""`turnout outcome`: how ids, times and files are read. The calls are walked elsewhere."""

import json
from pathlib import Path

import pytest

from tests.turnout.test_main import exit_code_of
from turnout.calls.outcome import OutcomeReport, read_keys, read_reports
from turnout.cli.arguments import finite_number, unix_ms
from turnout.errors import UsageError

ENTITIES = ["subscriber", "offer"]
ID = "ab" * 64
NOON_MS = 1_796_040_000_000
NOON = "2026-11-30T12:00:00Z"


@pytest.mark.parametrize(
    "keys",
    [["S=1", "offer 7"], ["subscriber=S=1", "offer=offer 7"], ["offer=offer 7", "subscriber=S=1"]],
)
def test_keys_come_by_name_or_in_the_order_of_the_model(keys: list[str]) -> None:
    """An id may have an equals sign."""
    assert read_keys("nba", ENTITIES, keys) == ["S=1", "offer 7"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ([], "0 ids; rows of 'nba' are keyed by subscriber, offer: give one for each"),
        (["S1"], "--key has 1 ids"),
        (["S1", "O1", "O2"], "--key has 3 ids"),
        (["subscriber=S1"], "name each of them once"),
        (["subscriber=S1", "O1"], "name each of them once"),
        (["subscriber=S1", "subscriber=S2"], "name each of them once"),
        (["subscriber=S1", "subscriber=S2", "offer=O1"], "name each of them once"),
        (["subscriber=S1", "offers=O1"], "name each of them once"),
        (["subscriber=S1", "offer="], "offer is '', which is no entity id"),
    ],
)
def test_keys_that_name_no_row_are_refused(keys: list[str], words: str) -> None:
    """Each entity has one id."""
    with pytest.raises(UsageError, match=words):
        read_keys("nba", ENTITIES, keys)


def test_a_model_without_entities_has_outcomes_by_prediction_id_only() -> None:
    """No key finds a prediction of it."""
    with pytest.raises(UsageError, match="has no entities; report its outcomes by prediction id"):
        read_keys("spam", [], ["S1"])


@pytest.mark.parametrize(
    "text", [NOON, str(NOON_MS), NOON_MS, "2026-11-30 12:00", "2026-11-30T13:00:00+01:00"]
)
def test_a_time_is_read_with_and_without_a_zone(text: object) -> None:
    """Without one it is UTC."""
    assert unix_ms("--at", text) == NOON_MS


@pytest.mark.parametrize(
    "text", ["", "noon", "1796040000", "-1", 1796040000000.5, True, None, "20261130", 10**30]
)
def test_what_is_no_time_is_refused(text: object) -> None:
    """Seconds, too, which would be a day of 1970."""
    with pytest.raises(UsageError, match=r"--at is .* which is no time since 1973"):
        unix_ms("--at", text)


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-inf", "1e999", "x", "", True, None, [1], 10**400]
)
def test_what_is_no_finite_number_is_refused(value: object) -> None:
    """Also JSON's true."""
    with pytest.raises(UsageError, match=r"VALUE is .*; it must be a finite number"):
        finite_number("VALUE", value)


def test_a_file_has_outcomes_by_prediction_id(tmp_path: Path) -> None:
    """Row, time and key may be absent or empty."""
    path = tmp_path / "outcomes"
    path.write_text(
        f"prediction_id,name,value,row,time\n{ID},churned,1,,\n{ID},paid,-2.5,3,{NOON}\n"
    )
    identity = bytes.fromhex(ID)
    first = OutcomeReport(name="churned", value=1.0, prediction_id=identity)
    second = OutcomeReport(name="paid", value=-2.5, prediction_id=identity, row=3, at_ms=NOON_MS)
    assert read_reports(path, "", []) == [first, second]
    cells = {"prediction_id": ID, "name": "churned", "value": 1}
    path.write_text(json.dumps(cells))
    assert read_reports(path, "", []) == [first]


def test_a_file_has_outcomes_by_entity(tmp_path: Path) -> None:
    """With a column for each entity."""
    path = tmp_path / "outcomes"
    path.write_text(
        f"offer,subscriber,time,name,value,idempotency_key\nO1,S1,{NOON},taken,1,crm/7\n"
    )
    assert read_reports(path, "nba", ENTITIES) == [
        OutcomeReport(
            name="taken",
            value=1.0,
            model="nba",
            keys=["S1", "O1"],
            at_ms=NOON_MS,
            idempotency_key="crm/7",
        )
    ]


BY_ID = "prediction_id,name,value,row,time\n"
BY_ENTITY = "subscriber,offer,time,name,value\n"


@pytest.mark.parametrize(
    ("model", "text", "words"),
    [
        ("", BY_ID, "has no rows"),
        ("", f"{BY_ID}{ID},churned,nan,,\n", "line 2: value is 'nan'"),
        ("", f"{BY_ID}{ID},,1,,\n", "line 2: name is '', which is no text"),
        ("", f"{BY_ID}{ID},churned,1,-1,\n", "line 2: row is '-1'"),
        ("", f"{BY_ID}{ID},churned,1,.5,\n", "line 2: row is '.5'"),
        ("", f"{BY_ID}{ID},churned,1,1e10,\n", "line 2: row is '1e10'"),
        ("", f"{BY_ID}{ID},churned,1,,soon\n", "line 2: time is 'soon'"),
        ("", f"{BY_ID}{ID}00,churned,1,,\n", "line 2: .* is no prediction id"),
        ("", f"{BY_ENTITY}S1,O1,{NOON},taken,1\n", "has no prediction_id and has the surplus sub"),
        ("nba", f"{BY_ENTITY}S1,O1,{NOON},taken,1\nS1,,{NOON},taken,1\n", "line 3: offer is ''"),
        ("nba", f"{BY_ENTITY}S1,O1,,taken,1\n", "line 2: time is ''"),
        ("nba", f"subscriber,time,name,value\nS1,{NOON},taken,1\n", "has no offer; the columns"),
        ("nba", '{"subscriber": "S1", "offer": 4.5}', "has no time, name, value"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_its_line(
    tmp_path: Path, model: str, text: str, words: str
) -> None:
    """Nothing of it is sent."""
    path = tmp_path / "outcomes"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        read_reports(path, model, ENTITIES if model else [])


def test_no_column_is_an_entity_and_a_field_of_the_outcome(tmp_path: Path) -> None:
    """An entity `name` has its ids in --key."""
    path = tmp_path / "outcomes"
    path.write_text(f"name,time,value\nS1,{NOON},1\n")
    with pytest.raises(UsageError, match="belong to the outcome; use --key"):
        read_reports(path, "nba", ["name"])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ([], "it got none"),
        (["churned", "1"], "it got 2: churned 1"),
        ([ID, "churned", "x"], "VALUE is 'x'"),
        ([ID, "", "1"], "NAME is empty"),
        ([ID, "churned", "1", "--key", "S1"], "--key needs --model"),
        ([ID, "churned", "1", "--at", "soon"], "--at is 'soon'"),
        (["--model", "nba", ID, "churned", "1"], "no prediction is named by its id"),
        (["--model", "nba", "churned", "1", "--key", "S1"], "--at is missing"),
        (
            ["--model", "nba", "churned", "1", "--at", NOON, "--row", "1"],
            "--row is of a prediction",
        ),
        (["--rows", "outcomes.csv", "churned", "1"], "by --rows or in the command, not both"),
        (["--rows", "nothing.csv"], "nothing.csv cannot be read"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    line: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before a call is made, and without a system."""
    assert exit_code_of(["outcome", *line]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_a_negative_value_comes_after_two_dashes(tmp_path: Path) -> None:
    """Then it is read, and only the system is missing."""
    line = ["outcome", "--folder", str(tmp_path), ID, "paid"]
    assert exit_code_of([*line, "-2.5"]) == 2
    assert exit_code_of([*line, "--", "-2.5"]) == 3
