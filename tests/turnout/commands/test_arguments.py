"""Numbers and prediction ids of the command line."""

import math

import pytest
from rich.text import Text

from protos import explain_pb2
from turnout.cli.arguments import float32_number, parse_prediction_id
from turnout.errors import UsageError
from turnout.explaining.command import explanation_view


@pytest.mark.parametrize("text", ["1e300", "-1e39", "1e400", "-1e400"])
def test_number_beyond_float32_is_refused(text: str) -> None:
    """The model would get an infinite one, and its score would look like that of the number."""
    with pytest.raises(UsageError, match=rf"f0={text}: models read float32.*3.402823e\+38"):
        float32_number("f0", text)


def test_numbers_of_float32_are_read() -> None:
    """An infinite number that is asked for is no mistake; a word is no number."""
    assert float32_number("f0", "3.4e38") == 3.4e38
    assert float32_number("f0", "-inf") == -math.inf
    assert math.isnan(float32_number("f0", "nan"))
    with pytest.raises(ValueError, match="could not convert"):
        float32_number("plan", "pre")


@pytest.mark.parametrize(
    ("text", "characters"), [("abc", 3), ("ab", 2), ("zz" * 64, 128), ("ab" * 65, 130)]
)
def test_prediction_id_has_128_hex_digits(text: str, characters: int) -> None:
    """The refusal says how many there are and how many there must be."""
    with pytest.raises(
        UsageError, match=f"no prediction id: it has {characters} characters.* 128 hex digits"
    ):
        parse_prediction_id(text)
    assert parse_prediction_id("ab" * 64) == b"\xab" * 64


@pytest.mark.parametrize("with_change", [True, False])
def test_change_that_was_not_asked_for_is_not_mentioned(with_change: bool) -> None:
    """Reasons are told in either case."""
    note = "the version has no reasons.toml"
    reply = explain_pb2.ExplainReply(reasons_note=note, change_note=note)
    shown = explanation_view(reply, with_change=with_change)
    lines = [item.plain for item in shown if isinstance(item, Text)]
    expected = [f"No reasons: {note}.", f"No change: {note}."]
    assert lines == (expected if with_change else expected[:1])
