"""Tests that docs/training.md has the bounds of the code about retrains."""

from pathlib import Path

from training.evaluation.gate import HELD_OUT_CLASS_MIN
from training.retrain import champion_now, step_cache
from turnout.errors import ExitCode
from turnout.training_runs.order import STEPS_FOLDER

PAGE = " ".join((Path(__file__).parents[3] / "docs" / "training.md").read_text().split())


def test_page_has_the_bounds_of_decay() -> None:
    """The rows of the window, and the fewest."""
    assert f"at most {champion_now.WINDOW_ROWS:,}." in PAGE
    assert f"With fewer than {champion_now.WINDOW_ROWS_MIN} new labels" in PAGE
    assert f"fewer than {champion_now.CLASS_ROWS_MIN} of a class" in PAGE
    assert f"and {HELD_OUT_CLASS_MIN} of either class" in PAGE


def test_page_has_the_bounds_of_steps() -> None:
    """Their folder, and what killed runs leave."""
    assert f"in `{STEPS_FOLDER}/` of the state folder" in PAGE
    gib = step_cache.BYTES_MAX / 2**30
    assert f"bounded to {gib:g} GiB and {step_cache.DAYS_MAX} days" in PAGE


def test_page_has_the_exit_code_of_no_gain() -> None:
    """An orchestrator tells it from a failure."""
    assert f"| no better, champion kept | {ExitCode.NO_BETTER:d} |" in PAGE
