"""Tests of proposals and questions."""

from dataclasses import replace

import pytest

from tests.training.adopted.foreign_models import (
    LABEL,
    foreign_model,
    known_features,
)
from training.adopted.proposals import (
    AnswerProposal,
    KnownFeature,
    foreign_columns,
    propose,
    with_answer,
)
from training.adoption.foreign import ForeignInput, ForeignOutput
from training.errors import AdoptionError


def keys(proposal: AnswerProposal) -> list[str]:
    """Return the keys of the open questions."""
    return [question.key for question in proposal.questions]


def test_usual_file_has_three_questions_and_none_the_next_time() -> None:
    """Names are matched without case and punctuation; the answers answer every question."""
    model, known = foreign_model(), known_features()
    proposal = propose(model, known, {})

    assert keys(proposal) == ["inputs", "serve", "words"]
    assert proposal.answers.inputs == {
        "Tenure-Months": "usage:tenure_months",
        "age": "request",
        "plan": "usage:plan",
    }
    assert proposal.answers.serve == ("stays",)
    assert proposal.answers.task == "binary"
    assert proposal.answers.entities == ("subscriber",)
    assert "Callers send the other 1." in proposal.questions[0].text
    again = propose(model, known, proposal.answers.definition())
    assert again.answers == proposal.answers
    assert again.questions == ()


def test_without_views_callers_send_every_column() -> None:
    """Any model can be served with inputs in the request; no question is about inputs."""
    proposal = propose(foreign_model(), [], {})
    assert set(proposal.answers.inputs.values()) == {"request"}
    assert keys(proposal) == ["serve", "words"]
    assert proposal.answers.entities == ()


@pytest.mark.parametrize("pair", [("0", "1"), ("1", "0"), ("no", "Yes"), ("False", "True")])
def test_certain_positive_class_is_not_asked(pair: tuple[str, str]) -> None:
    """0 and 1, no and yes, False and True."""
    output = ForeignOutput("p", "probabilities", 2, pair)
    proposal = propose(foreign_model(outputs=(output,)), [], {})
    assert "serve" not in keys(proposal)
    assert proposal.answers.serve[0].casefold() in {"1", "yes", "true"}


def test_classes_values_and_logits_have_their_tasks() -> None:
    """Three classes are all served, values are a regression, and logits are asked about."""
    three = ForeignOutput("p", "probabilities", 3, ("a", "b", "c"))
    answers = propose(foreign_model(outputs=(LABEL, three)), [], {}).answers
    assert (answers.task, answers.serve) == ("multiclass", ("a", "b", "c"))
    amount = ForeignOutput("variable", "values", 1)
    answers = propose(foreign_model(outputs=(amount,)), [], {}).answers
    assert (answers.task, answers.serve) == ("regression", ("0",))
    logits = ForeignOutput("logits", "values", 2)
    proposal = propose(foreign_model(outputs=(logits,)), [], {})
    assert keys(proposal)[0] == "transform"
    assert (proposal.answers.transform, proposal.answers.serve) == ("softmax", ("1",))
    with_none = propose(foreign_model(outputs=(logits,)), [], {"transform": "none"})
    assert (with_none.answers.task, with_none.answers.serve) == ("regression", ("0", "1"))


def test_several_scores_are_asked_and_a_label_alone_is_refused() -> None:
    """Probabilities come before values."""
    first, second = ForeignOutput("a", "values", 1), ForeignOutput("b", "values", 1)
    proposal = propose(foreign_model(outputs=(first, second)), [], {})
    assert keys(proposal)[0] == "output"
    assert proposal.questions[0].choices == ("a", "b")
    with pytest.raises(AdoptionError, match="only a label"):
        propose(foreign_model(outputs=(LABEL,)), [], {})


def test_columns_without_names_are_matched_by_order_with_chosen_views() -> None:
    """Only if the views were chosen for this model, and kinds fit."""
    known = [item for item in known_features() if not item.feature.dictionary]
    model = foreign_model(ForeignInput("x", "float", ("x_0", "x_1")))
    proposal = propose(model, known, {}, by_order=True)
    assert list(proposal.answers.inputs.values()) == ["usage:tenure_months", "usage:minutes"]
    assert keys(proposal)[0] == "inputs"
    assert set(propose(model, known, {}).answers.inputs.values()) == {"request"}
    texts = foreign_model(ForeignInput("x", "text", ("x_0", "x_1")))
    assert set(propose(texts, known, {}, by_order=True).answers.inputs.values()) == {"request"}


def test_name_of_two_views_is_proposed_with_the_view_in_front_only() -> None:
    """A guess between two views would be wrong half of the time, and --yes would take it."""
    known = known_features()
    other = replace(known[2].view, name="offer", entities=("offer",))
    both = [*known, KnownFeature(other, known[2].feature)]
    model = foreign_model(ForeignInput("x", "float", ("minutes", "offer.minutes")))
    assert propose(model, known, {}).answers.inputs["minutes"] == "usage:minutes"
    assert propose(model, both, {}).answers.inputs == {
        "minutes": "request",
        "offer.minutes": "offer:minutes",
    }


def test_category_feature_is_not_proposed_for_a_number() -> None:
    """Its position is another number than the model's own encoding."""
    model = foreign_model(ForeignInput("plan", "float", ("plan",)))
    assert propose(model, known_features(), {}).answers.inputs == {"plan": "request"}


def test_words_of_the_model_stand_for_missing_and_unknown() -> None:
    """A model that knows `Other` and `nan` gets these; else a word that it does not know."""
    words = foreign_model(
        ForeignInput("a", "text", ("a",), (("x", "Other", "nan"),)),
        ForeignInput("b", "text", ("b",), (("", "x"),)),
    )
    answers = propose(words, [], {}).answers
    assert answers.unknown == {"a": "Other", "b": "unknown"}
    assert answers.missing == {"a": "nan", "b": ""}
    one_word = propose(words, [], {"unknown": "x", "missing": {"a": "x"}})
    assert one_word.answers.unknown == {"a": "x", "b": "x"}
    assert keys(one_word) == ["serve", "words"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inputs": {"agee": "request"}}, r"columns \['agee'\], which the model does not have"),
        ({"inputs": {"age": "usage:agee"}}, "there is no such feature"),
        ({"output": "label"}, "outputs that can be served are"),
        ({"serve": ["maybe"]}, r"serve = 'maybe'; the output has \['leaves', 'stays'\]"),
    ],
)
def test_answers_that_contradict_the_file_are_refused(
    given: dict[str, object], message: str
) -> None:
    """Also after a retraining that has other columns or classes."""
    with pytest.raises(AdoptionError, match=message):
        propose(foreign_model(), known_features(), given)


def test_answer_to_a_question_closes_it() -> None:
    """The words question has one answer for both tables."""
    proposal = propose(foreign_model(), [], {})
    given = with_answer({}, proposal.questions[0], "leaves")
    given = with_answer(given, proposal.questions[1], "other")
    closed = propose(foreign_model(), [], given)
    assert closed.questions == ()
    assert closed.answers.serve == ("leaves",)
    assert closed.answers.missing == closed.answers.unknown == {"plan": "other"}


def test_columns_of_one_name_in_two_inputs_get_names_of_their_own() -> None:
    """Else one answer would stand for both."""
    model = foreign_model(ForeignInput("a", "float", ("v",)), ForeignInput("b", "float", ("v",)))
    assert [column.name for column in foreign_columns(model)] == ["a.v.0", "b.v.0"]
