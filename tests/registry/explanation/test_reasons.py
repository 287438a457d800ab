"""Reasons are declared, sealed and ranked as they were declared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.explanation.reasons import (
    ReasonGroup,
    Reasons,
    ReasonsError,
    rank_reasons,
    read_reasons,
)
from tests.property_examples import examples

USE = ReasonGroup(name="use", features=("usage:calls", "usage:data"), texts={"en": "Little use."})
PLAN = ReasonGroup(
    name="plan",
    features=("plan",),
    texts={"en": "A short contract."},
    changeable=True,
    direction="up",
)
AGE = ReasonGroup(name="age", features=("age",), disclosed=False, protected=True)
REASONS = Reasons(adverse="above", groups=(USE, PLAN, AGE))

TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1, max_size=20)


def test_largest_groups_come_first_with_their_share() -> None:
    """Contributions of a group are added; what lowered the score is no reason for a high one."""
    contributions = [
        (("usage:calls",), 0.5),
        (("usage:data",), 0.3),
        (("plan",), 0.4),
        (("age",), -0.2),
    ]
    ranked = rank_reasons(REASONS, contributions, 4)
    assert [reason.group for reason in ranked] == [USE, PLAN]
    assert [round(reason.share, 3) for reason in ranked] == [0.8, 0.4]
    assert ranked[0].contribution == pytest.approx(0.8)


def test_low_scores_are_adverse_where_the_reasons_say_so() -> None:
    """Contributions below 0 are reasons for a low score, and keep their sign."""
    below = Reasons(adverse="below", groups=REASONS.groups)
    ranked = rank_reasons(below, [(("plan",), -0.4), (("usage:calls",), 0.1)], 4)
    assert [(reason.group, reason.contribution) for reason in ranked] == [(PLAN, -0.4)]


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        (("age",), "protected, and the decision rests on it"),
        (("region",), "region is in no group"),
        (("plan", "age"), "plan and age is in no group"),
        (("plan", "region"), "plan and region is in no group"),
    ],
)
def test_reason_that_may_not_be_disclosed_is_listed(inputs: tuple[str, ...], problem: str) -> None:
    """Leaving it out would make the next one look like the largest."""
    first, second = rank_reasons(REASONS, [(inputs, 0.6), (("usage:calls",), 0.2)], 4)
    assert problem in first.problem
    assert second.problem == ""


def test_small_reasons_are_left_out() -> None:
    """Below a twentieth of the adverse gap."""
    ranked = rank_reasons(REASONS, [(("plan",), 1.0), (("usage:calls",), 0.04)], 4)
    assert [reason.group for reason in ranked] == [PLAN]


def test_no_contribution_to_the_adverse_side_is_no_reason() -> None:
    """Nothing is made up."""
    assert rank_reasons(REASONS, [(("plan",), -1.0)], 4) == ()
    assert rank_reasons(REASONS, [], 4) == ()


@examples(20)
@given(
    name=TEXTS, words=st.dictionaries(TEXTS.filter(lambda text: len(text) < 16), TEXTS, min_size=1)
)
def test_file_holds_what_was_declared(name: str, words: dict[str, str]) -> None:
    """Names and words with quotes, backslashes and letters of any language."""
    if not all(text.isprintable() for text in words.values()):
        return
    reasons = Reasons(
        adverse="below",
        groups=(ReasonGroup(name=name, features=(name,), texts=words), AGE),
    )
    content = reasons.to_toml()
    assert read_reasons(content).definition() == reasons.definition()
    assert read_reasons(content).to_toml() == content


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": ()}, "give it a name, and a tuple"),
        ({"features": "plan"}, "give it a name, and a tuple"),
        ({"texts": {}}, "is disclosed and has no texts"),
        ({"texts": {"en": "two\nlines"}}, "one line"),
        ({"texts": {"en": "x" * 500}}, "one line"),
        ({"protected": True}, "protected and disclosed"),
        ({"direction": "sideways"}, "up, down or any"),
    ],
)
def test_group_that_contradicts_itself_is_refused(changed: dict[str, object], message: str) -> None:
    """Each with a sentence that names the group."""
    definition = {**PLAN.definition(), **changed}
    with pytest.raises(ReasonsError, match=message):
        ReasonGroup(**definition)


def test_reasons_that_contradict_each_other_are_refused() -> None:
    """A feature of two groups, a name of two groups, and a group without one of the languages."""
    again = ReasonGroup(name="again", features=("plan",), texts={"en": "Again."})
    with pytest.raises(ReasonsError, match="feature 'plan' is in the reasons twice"):
        Reasons(adverse="above", groups=(PLAN, again))
    with pytest.raises(ReasonsError, match="group 'plan' is in the reasons twice"):
        Reasons(adverse="above", groups=(PLAN, PLAN))
    german = ReasonGroup(name="other", features=("x",), texts={"de": "Anders."})
    with pytest.raises(ReasonsError, match=r"texts in \['de', 'en'\]"):
        Reasons(adverse="above", groups=(PLAN, german))
    with pytest.raises(ReasonsError, match="'above' or 'below'"):
        Reasons(adverse="over", groups=(PLAN,))  # type: ignore[arg-type]
    with pytest.raises(ReasonsError, match="0 reason groups"):
        Reasons(adverse="above", groups=())


def test_feature_that_the_model_lacks_is_refused() -> None:
    """Training finds it, so that no decision is explained by a name that means nothing."""
    REASONS.check_names(["usage:calls", "usage:data", "plan", "age"])
    with pytest.raises(ReasonsError, match="'age', which is no input of the model"):
        REASONS.check_names(["usage:calls", "usage:data", "plan"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "is no TOML"),
        (b"format = 1", "not reasons"),
        (b"format = 2\nadverse = 'above'", "has the format 2"),
        (b"format = 1\nadverse = 'above'\ngroups = [{name = 'x'}]", "not reasons"),
        (b"format = 1\nadverse = 'above'\ngroups = 3", "not reasons"),
    ],
)
def test_file_that_is_no_reasons_file_is_refused(content: bytes, message: str) -> None:
    """Whatever an author puts into a version."""
    with pytest.raises(ReasonsError, match=message):
        read_reasons(content)
