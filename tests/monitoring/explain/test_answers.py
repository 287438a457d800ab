"""Answers have values in words, and what a child says is checked before it is passed on."""

from typing import Any

import numpy as np
import pytest

from features.canonical import sha256_hex
from features.contract import ModelContract, RequestInput, ViewUse
from features.views import Feature, View
from monitoring.explain.answers import VersionAnswers
from monitoring.explain.service import _reply
from protos import explain_pb2
from registry.explanation.errors import NotExplainedError
from registry.explanation.inputs import row_of_names
from tests.registry.explanation.test_explainer import TRAINED, small_files

ASKED: dict[str, Any] = {
    "served": None,
    "output": None,
    "reasons_max": 0,
    "language": "",
    "change": True,
}


def answers(task: Any = "binary") -> tuple[VersionAnswers, list[float]]:  # noqa: ANN401  a TargetTask
    """Answers of a small version, and one of its rows."""
    files, rows = small_files("boosting", task)
    return VersionAnswers(files, sha256_hex(files["manifest.json"])), rows[TRAINED].tolist()


def test_values_are_in_words() -> None:
    """A category has its word, one past the last is unknown, and NaN is missing."""
    explained, row = answers()
    for plan, word in ((0.0, "month"), (2.0, "two"), (3.0, "unknown"), (np.nan, "missing")):
        answer = explained.answer({**ASKED, "row": [*row[:2], plan, row[3]]})
        texts = {item["feature"]: item["texts"] for item in answer["contributions"]}
        assert texts["profile:plan"] == [word]


def test_predicted_class_is_explained_unless_another_is_asked_for() -> None:
    """The largest of several outputs is the default; a position asks for any."""
    explained, row = answers("multiclass")
    predicted = explained.answer({**ASKED, "row": row})
    by_output = [explained.answer({**ASKED, "row": row, "output": output}) for output in range(3)]
    largest = max(by_output, key=lambda answer: answer["score"])
    assert predicted == largest
    assert sum(answer["score"] for answer in by_output) == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(NotExplainedError, match="no output 3; the version has 3, from 0"):
        explained.answer({**ASKED, "row": row, "output": 3})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"row": [1.0]}, "has 1 values, and the version reads 4"),
        ({"served": [0.1, 0.2]}, "2 scores were recorded for 1 outputs"),
        ({"served": [0.999]}, "was served"),
    ],
)
def test_row_that_is_none_of_the_version_is_refused(changed: dict[str, Any], message: str) -> None:
    """A journal of another version, or of another row."""
    explained, row = answers()
    with pytest.raises(NotExplainedError, match=message):
        explained.answer({**ASKED, "row": row, **changed})


def test_answer_becomes_a_reply() -> None:
    """Every field that a child writes has its place in the message."""
    explained, row = answers()
    answer = explained.answer({**ASKED, "row": row})
    reply = _reply(answer)
    assert reply.decision == explain_pb2.ExplainReply.NOT_KNOWN
    assert reply.score == pytest.approx(answer["score"])
    assert [item.feature for item in reply.contributions] == [
        item["feature"] for item in answer["contributions"]
    ]


def test_change_that_was_not_asked_for_says_so() -> None:
    """Not the reason why there could be none."""
    explained, row = answers()
    answer = explained.answer({**ASKED, "row": row, "change": False})
    assert answer["change_note"] == "it was not asked for"
    assert "reasons.toml" in answer["reasons_note"]


@pytest.mark.parametrize(
    "changed",
    [
        {"score": "high"},
        {"decision": "MAYBE"},
        {"contributions": [{"feature": "x"}]},
        {"contributions": 3},
        {"reasons": [{"group": 3}]},
        {"change": [{"unknown": "x"}]},
        {"unit": None, "base": "1"},
    ],
)
def test_answer_of_another_form_is_refused(changed: dict[str, Any]) -> None:
    """A hostile version may have written it."""
    explained, row = answers()
    answer = explained.answer({**ASKED, "row": row})
    with pytest.raises(NotExplainedError, match="no explanation of the form"):
        _reply({**answer, **changed})


@pytest.mark.parametrize("margin", [1e9, float("nan")])
def test_answer_that_does_not_add_up_is_refused(margin: float) -> None:
    """Contributions are summed again outside of the child."""
    explained, row = answers()
    answer = explained.answer({**ASKED, "row": row})
    with pytest.raises(NotExplainedError, match="add up to"):
        _reply({**answer, "margin": margin})


CONTRACT = ModelContract(
    entities=("subscriber",),
    views=(
        ViewUse(
            view=View(
                name="usage",
                entities=("subscriber",),
                features=(
                    Feature(name="calls", default=2.0),
                    Feature(name="plan", dtype="category", dictionary=("a", "b")),
                ),
                ttl_ms=1_000,
                transform="SELECT * FROM source",
            ),
            features=("calls", "plan"),
        ),
    ),
    inputs=(RequestInput(name="amount", default=7.0),),
    request_time=True,
)
TIME = {"now:day": 20_000.0, "now:second": 5.0}


def test_named_inputs_make_a_row() -> None:
    """In the contract's order; words have their codes, and what is left out its default."""
    assert row_of_names(CONTRACT, {"usage:calls": 3.0, **TIME}, {"plan": "b"}) == [
        *(3.0, 1.0, 7.0),
        *TIME.values(),
    ]
    assert row_of_names(CONTRACT, TIME, {"plan": "z"})[1] == 2.0


@pytest.mark.parametrize(
    ("named", "texts", "message"),
    [
        ({"height": 1.0}, {}, "'height' names 0 inputs"),
        (TIME, {"amount": "much"}, "'amount' is a number"),
        ({}, {}, "reads the time of a request; give now:day"),
    ],
)
def test_name_that_is_no_input_is_refused(
    named: dict[str, float], texts: dict[str, str], message: str
) -> None:
    """The sentence names the inputs that there are."""
    with pytest.raises(NotExplainedError, match=message):
        row_of_names(CONTRACT, named, texts)
