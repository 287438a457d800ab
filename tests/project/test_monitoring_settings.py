"""Tests of [monitoring] in a model's file: read strictly, with file and line, and in the digest."""

from pathlib import Path

import pytest

from project.definitions import ProjectDefinitions
from project.model_settings import checked_settings, monitoring_line
from project.plan.differences import changes_between
from tests.project.project_files import MODEL, loaded

pytestmark = pytest.mark.walk

WATCHED = (
    MODEL
    + """
[monitoring]
budget = 0.5

[monitoring.outcomes.churned]
positive_when = ">= 1"
horizon = "30d"

[monitoring.segments.use]
feature = "minutes"
ranges = { low = [0, 10], high = [10, inf] }
"""
)


def test_watched_model_is_in_the_definitions(tmp_path: Path) -> None:
    """With every default, so that what is in force can be read. Without the section no key is."""
    found = loaded(tmp_path, {"models/churn.toml": WATCHED})
    assert found.problems == ()
    policy = found.definitions.models["churn"]["monitoring"]
    assert (policy["budget"], policy["acts"]["quality"]) == (0.5, "hold")
    assert "monitoring" not in loaded(tmp_path / "plain").definitions.models["churn"]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('horizon = "30d"', 'horizon = "0d"', 17, "outcomes.churned.horizon = '0d'"),
        ('horizon = "30d"', 'horizont = "30d"', 17, "outcomes.churned.horizont is not known"),
        ("outcomes.churned", "outcomes.left", 15, "is no outcome of this model"),
        ('feature = "minutes"', 'feature = "minute"', 20, "features are minutes, topups"),
        ("low = [0, 10]", "low = [0, 11]", 21, "overlap from 10 to 11"),
        ("budget = 0.5", "budget = 0.5\nspeed = 1", 14, "speed is not known"),
        ("budget = 0.5", 'sensitive = ["race"]', 13, "the views are usage"),
    ],
)
def test_wrong_policy_is_refused_with_file_and_line(
    tmp_path: Path, old: str, new: str, line: int, words: str
) -> None:
    """As other settings are, in words."""
    (problem,) = loaded(tmp_path, {"models/churn.toml": WATCHED.replace(old, new)}).problems
    assert (problem.file, problem.line) == ("models/churn.toml", line)
    assert words in problem.text


def test_line_is_that_of_the_key_or_of_its_table(tmp_path: Path) -> None:
    """A problem of other settings has no line, as before."""
    path = tmp_path / "churn.toml"
    path.write_text(WATCHED)
    assert monitoring_line(path, "monitoring: budget = -1") == 13
    assert monitoring_line(path, "monitoring: harm.auc_drop = 2") == 12
    assert monitoring_line(path, "holdout_bp = -1; it is") == 0


def test_changed_policy_is_in_the_plan() -> None:
    """The plan names the key, its old and its new value."""
    plain = {"owner": "a", "purpose": "b", "score_meaning": "c"}
    before, after = (
        ProjectDefinitions(
            name="shop",
            models={"churn": checked_settings({**plain, "monitoring": {"acts": {"auc": act}}})},
        )
        for act in ("note", "rollback")
    )
    (change,) = changes_between(before, after)
    assert (change.section, change.kind) == ("models", "changed")
    assert any("note -> rollback" in detail for detail in change.details)
