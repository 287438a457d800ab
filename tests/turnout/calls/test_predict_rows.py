"""`turnout predict`: how inputs and files of rows are read. The calls are walked elsewhere."""

import json
from pathlib import Path

import pytest

from protos.predict_pb2 import ModelDescription, RequestInput
from turnout.calls.predict import RequestRow, read_rows, request_row
from turnout.errors import UsageError

NBA = ModelDescription(
    model="nba",
    entities=["subscriber", "offer"],
    inputs=[
        RequestInput(name="price"),
        RequestInput(name="plan", dictionary=["1", "2", "3", "1e3", "nan", "inf"]),
    ],
)
KEYS = ["S1", "O1"]


@pytest.mark.parametrize("text", ["2", "1e3", "nan", "inf", "1_0", "PREPAID", ""])
def test_category_is_sent_as_text_whatever_it_looks_like(text: str) -> None:
    """A number would be taken for the position in the dictionary."""
    assert request_row(NBA, KEYS, [f"plan={text}"]).inputs == {"plan": text}


def test_number_is_sent_as_a_number() -> None:
    """An unknown name is left to the gateway, which names those that there are."""
    row = request_row(NBA, KEYS, ["price=2", "else=3", "other=x"])
    assert row == RequestRow(KEYS, {"price": 2.0, "else": 3.0, "other": "x"})


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (["price=cheap"], "price=cheap: model 'nba' takes a number there"),
        (["plan=2", "plan=3"], "--input names plan twice"),
        (["price"], "is not NAME=VALUE"),
    ],
)
def test_input_that_cannot_be_read_is_refused(named: list[str], words: str) -> None:
    """In words, before a call is made."""
    with pytest.raises(UsageError, match=words):
        request_row(NBA, KEYS, named)


CSV = "subscriber,offer,price,plan\nS1,O1,2.5,2\nS1,O2,,\n"
JSON_LINES = (
    '{"subscriber": "S1", "offer": "O1", "price": 2.5, "plan": 2}\n\n'
    '{"subscriber": "S1", "offer": "O2", "price": null}\n'
)


@pytest.mark.parametrize("text", [CSV, JSON_LINES, "\ufeff" + CSV.replace("\n", "\r\n")])
def test_file_of_rows_is_read_by_the_names_of_the_model(tmp_path: Path, text: str) -> None:
    """An empty cell leaves the input at its default, and a category is text."""
    path = tmp_path / "rows"
    path.write_bytes(text.encode())
    assert read_rows(path, NBA) == [
        RequestRow(["S1", "O1"], {"price": 2.5, "plan": "2"}),
        RequestRow(["S1", "O2"], {}),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CSV + "S1,O3,x,2\n", "line 4: price=x: model 'nba' takes a number"),
        (CSV + "S1,O3\n", "line 4 has more or fewer cells"),
        (CSV + "S1,O3,1,2,3\n", "line 4 has more or fewer cells"),
        (CSV + "S1,,1,2\n", "line 4: offer is '', which is no entity id"),
        (CSV.replace("price", "cost"), "line 2: model 'nba' has no entity or input 'cost'"),
        ("subscriber,offer\n", "has no rows"),
        ("", "has no rows"),
        (JSON_LINES + "{", "line 4 is not JSON"),
        (JSON_LINES + "[1]", "line 4 is no JSON object"),
        (JSON_LINES + '{"subscriber": "S1", "offer": 4.0}', "offer is 4.0, which is no entity id"),
        (JSON_LINES + '{"subscriber": "S1", "offer": true}', "offer is True"),
        (JSON_LINES + '{"subscriber": "S1"}', "offer is None"),
        (JSON_LINES + json.dumps({"subscriber": "S", "offer": 4, "price": [1]}), "takes a number"),
    ],
)
def test_file_that_cannot_be_read_is_refused_with_its_line(
    tmp_path: Path, text: str, words: str
) -> None:
    """Nothing of it is scored."""
    path = tmp_path / "rows"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        read_rows(path, NBA)


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Absent, or bytes that are not UTF-8."""
    path = tmp_path / "rows"
    with pytest.raises(UsageError, match="cannot be read"):
        read_rows(path, NBA)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read"):
        read_rows(path, NBA)
