"""Tests of the answers file and of options."""

import re

import pytest

from training.adopted.answers import (
    Answers,
    answers_toml,
    merged_answers,
    parse_option,
    read_answers,
)
from training.errors import AdoptionError

ANSWERS = Answers(
    inputs={"Total Charges": "usage:total", 'a "b"': "request", "zone": {"constant": "EU"}},
    output="probabilities",
    serve=("1",),
    task="binary",
    threshold=0.25,
    entities=("subscriber",),
    unknown={"plan": "other"},
    missing={"plan": "\x7f\n\u00e9"},
)


def test_answers_file_is_read_as_it_was_written() -> None:
    """Names with blanks and quotes, controls in words, and a constant come back."""
    text = answers_toml(ANSWERS, model="churn", file="churn.pkl")
    assert read_answers(text, "x") == {"file": "churn.pkl", **ANSWERS.definition()}


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("serve=yes", {"serve": "yes"}),
        ("serve=1", {"serve": "1"}),
        ('serve=["a", "b"]', {"serve": ["a", "b"]}),
        ("threshold=0.3", {"threshold": 0.3}),
        ("inputs.age=usage:age", {"inputs": {"age": "usage:age"}}),
        ('inputs."Total Charges"=request', {"inputs": {"Total Charges": "request"}}),
        ("inputs.rate={constant = 2}", {"inputs": {"rate": {"constant": 2}}}),
        ("unknown=", {"unknown": ""}),
        ("missing.plan=n/a", {"missing": {"plan": "n/a"}}),
    ],
)
def test_option_is_a_line_of_the_file(option: str, expected: dict[str, object]) -> None:
    """A value without quotes is a text, also if it looks like a number."""
    assert parse_option(option) == expected


@pytest.mark.parametrize("option", ["serve", "=yes", "inputs.Total Charges=request", "serve=[a"])
def test_option_that_is_no_line_is_refused(option: str) -> None:
    """The message shows the form."""
    with pytest.raises(AdoptionError, match=re.escape(repr(option)) + ".*KEY=VALUE"):
        parse_option(option)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("serv = 1", r"x has \['serv'\], which is not known"),
        ("task = 'rank'", "task = 'rank'; it is one of"),
        ("transform = 'log'", "transform = 'log'"),
        ("threshold = 'high'", "threshold = 'high'; it is a number"),
        ("inputs = 'request'", "inputs is a table"),
        ("[inputs]\nage = 3", "inputs.age = 3; it is a text in quotes"),
        ("[inputs]\nage = {value = 3}", r"a constant is \{ constant = 3 \}"),
        ("serve = [[1]]", "serve = "),
        ("serve =", "x is not TOML"),
    ],
)
def test_answers_file_that_is_wrong_names_the_line(text: str, message: str) -> None:
    """A key that is not known would be without effect."""
    with pytest.raises(AdoptionError, match=message):
        read_answers(text, "x")


def test_later_answers_win_name_by_name() -> None:
    """An option for one column leaves the file's other columns as they are."""
    merged = merged_answers(
        {"inputs": {"a": "request", "b": "request"}, "serve": ["x"]},
        {"inputs": {"b": "usage:b"}, "serve": "y"},
    )
    assert merged == {"inputs": {"a": "request", "b": "usage:b"}, "serve": ["y"]}
