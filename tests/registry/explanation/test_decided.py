"""Decisions are told with reasons and the smallest change, which the version itself proves."""

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from registry.explanation.changes import ChangeableInput, smallest_change
from registry.explanation.decided import DecisionExplainer, read_decision_explainer, reason_fidelity
from registry.explanation.errors import NotExplainedError
from registry.explanation.reasons import ReasonGroup, Reasons
from tests.registry.explanation.test_explainer import small_files
from tests.registry.explanation.versions import explainer_of

TENURE, CHARGES, PLAN = "profile:tenure", "profile:charges", "profile:plan"


def group(name: str, *, changeable: bool = True, direction: str = "any") -> ReasonGroup:
    """A group of one input that may be told."""
    return ReasonGroup(
        name=name,
        features=(name,),
        texts={"en": f"{name} decided."},
        changeable=changeable,
        direction=direction,  # type: ignore[arg-type]
    )


def decisions_of(kind: str, *groups: ReasonGroup) -> tuple[DecisionExplainer, NDArray[np.float32]]:
    """The decisions of a small version at the threshold .5, and rows with an adverse decision."""
    reasons = Reasons(adverse="above", groups=groups)
    files, rows = small_files(kind, more={"reasons.toml": reasons.to_toml()})
    explainer = explainer_of(files)
    decisions = read_decision_explainer(explainer, files)
    assert decisions is not None
    scores = explainer.score(rows)[:, 0]
    return decisions, rows[scores >= 0.5]


@pytest.mark.parametrize("kind", ["boosting", "forest", "logistic"])
def test_change_is_allowed_and_decides_otherwise(kind: str) -> None:
    """It goes in its direction, stays in the range of the training rows, and is scored."""
    decisions, rows = decisions_of(
        kind, group(TENURE, direction="up"), group(CHARGES, direction="down")
    )
    found = 0
    for row in rows[:20]:
        told = decisions.explain(row, None)
        assert told.adverse
        assert told.tried > 0
        if told.change is None:
            continue
        found += 1
        changed = row.copy()
        for position, before, after in told.change.changes:
            assert before == row[position]
            assert after > before if position == 0 else after < before
            assert 0 <= after <= 72 if position == 0 else 18 <= after <= 119
            changed[position] = after
        score = float(decisions.explainer.score(changed[np.newaxis])[0, 0])
        assert score == told.change.score < 0.5
    assert found > 10


def test_change_is_the_smallest_of_all_whole_numbers() -> None:
    """A search over every tenure finds nothing nearer than what the trees' thresholds gave."""
    decisions, rows = decisions_of("boosting", group(TENURE, direction="up"))
    for row in rows[:20]:
        told = decisions.explain(row, None)
        grid = np.repeat(row[np.newaxis], 73, axis=0)
        grid[:, 0] = np.arange(73)
        allowed = grid[grid[:, 0] > row[0]]
        favourable = (
            allowed[decisions.explainer.score(allowed)[:, 0] < 0.5] if len(allowed) else allowed
        )
        if told.change is None:
            assert not len(favourable)
        else:
            ((_, _, after),) = told.change.changes
            assert after == favourable[:, 0].min()


def test_nothing_within_the_power_of_the_person_is_an_answer() -> None:
    """What can be changed is not what decides."""
    decisions, rows = decisions_of(
        "boosting", group("profile:senior"), group(TENURE, changeable=False)
    )
    answers = [decisions.explain(row, None) for row in rows[:10]]
    assert any(answer.change is None and answer.tried > 0 for answer in answers)
    fixed, rows = decisions_of("boosting", group(TENURE, changeable=False))
    assert fixed.explain(rows[0], None).tried == 0


def test_category_is_changed_to_another_word() -> None:
    """Codes of a dictionary are no distance: every other word is as far."""
    decisions, rows = decisions_of("boosting", group(PLAN))
    changes = [told.change for told in (decisions.explain(row, None) for row in rows[:30])]
    after = {change.changes[0][2] for change in changes if change is not None}
    assert after
    assert after <= {0.0, 1.0, 2.0}


def test_two_inputs_are_changed_where_one_is_not_enough() -> None:
    """The nearest pair is found, and it is nearer than any other pair of candidates."""

    def score(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return (rows[:, :1] + rows[:, 1:2]).astype(np.float32)

    inputs = [
        ChangeableInput(
            position=position,
            direction="down",
            thresholds=np.arange(10.0),
            low=0.0,
            high=9.0,
            unit=1.0 + position,
            integral=True,
            categories=0,
        )
        for position in (0, 1)
    ]
    row = np.array([8, 8, 5], dtype=np.float32)
    change, tried = smallest_change(row, inputs, score, lambda scores: scores <= 5)
    assert change is not None
    assert tried > 10
    nearest = min(
        (8 - first) + (8 - second) / 2
        for first, second in product(range(10), repeat=2)
        if first + second <= 5 and first <= 8 and second <= 8
    )
    assert change.distance == pytest.approx(nearest)


def test_favourable_decision_has_no_reasons() -> None:
    """Reasons are for adverse ones."""
    decisions, _ = decisions_of("boosting", group(TENURE))
    favourable = decisions.explainer.background.rows[
        decisions.explainer.background_scores[:, 0] < 0.5
    ]
    told = decisions.explain(favourable[0], None)
    assert (told.adverse, told.reasons, told.change) == (False, (), None)


def test_reasons_hold_when_they_are_taken_away() -> None:
    """Setting the largest group to its medians moves nearly every score back."""
    decisions, rows = decisions_of("boosting", group(TENURE), group(CHARGES), group(PLAN))
    fidelity = reason_fidelity(decisions, rows)
    assert fidelity["explained"] == fidelity["adverse_rows"] > 50
    assert fidelity["moved_share"] >= 0.95
    assert 0 <= fidelity["flipped_share"] <= fidelity["moved_share"]


def test_task_without_a_decision_has_no_reasons() -> None:
    """A value has no threshold."""
    reasons = Reasons(adverse="above", groups=(group(TENURE),))
    files, _ = small_files("boosting", "regression", more={"reasons.toml": reasons.to_toml()})
    with pytest.raises(NotExplainedError, match="the task 'regression' with 1 outputs has none"):
        read_decision_explainer(explainer_of(files), files)


def test_reasons_file_of_other_features_is_refused() -> None:
    """A version is what its author wrote, so its file is checked again."""
    reasons = Reasons(adverse="above", groups=(group("height"),))
    files, _ = small_files("boosting", more={"reasons.toml": reasons.to_toml()})
    with pytest.raises(NotExplainedError, match="'height', which is no input"):
        read_decision_explainer(explainer_of(files), files)


def test_background_without_a_favourable_row_is_refused() -> None:
    """There is nothing that an adverse decision could be compared with."""
    reasons = Reasons(adverse="above", groups=(group(TENURE),))
    files, _ = small_files("boosting", more={"reasons.toml": reasons.to_toml()}, threshold=0.001)
    with pytest.raises(NotExplainedError, match="no row of the background got the favourable"):
        read_decision_explainer(explainer_of(files), files)
