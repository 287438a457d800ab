"""The gates of a comparison of two checkouts hold or not, by the ratio of new to old."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving import before_after
from benchmarks.serving.gates import (
    GRPCIO,
    NATIVE,
    NEW,
    OLD,
    ComparedFigure,
    compare_figures,
    comparison_table,
    invalid_rounds,
)
from benchmarks.serving.workloads import KEYED, KEYED_SINGLE_CALLER


def abba_rounds(
    ingress: str, workload: str, figure: str, old: list[float], new: list[float]
) -> list[dict[str, Any]]:
    """Rounds of both sides, two turns of each a round; every other figure is alike on both."""
    alike = {"calls_per_s": 1000.0, "server_us_per_call": 100.0, "p50_ms": 1.0}
    return [
        {"ingress": ingress, "workload": workload, "side": side, "failed": 0}
        | {"degraded_share": 0.0, **alike, figure: value}
        for side, values in ((OLD, old), (NEW, new))
        for value in values
    ]


@pytest.mark.parametrize(
    ("ingress", "workload", "figure", "new", "passed"),
    [
        (NATIVE, KEYED, "calls_per_s", 981.0, True),
        (NATIVE, KEYED, "calls_per_s", 979.0, False),
        (NATIVE, KEYED, "calls_per_s", 2_000.0, True),
        (NATIVE, KEYED, "server_us_per_call", 1_019.0, True),
        (NATIVE, KEYED, "server_us_per_call", 1_021.0, False),
        (NATIVE, KEYED_SINGLE_CALLER, "p50_ms", 1_029.0, True),
        (NATIVE, KEYED_SINGLE_CALLER, "p50_ms", 1_031.0, False),
        (NATIVE, KEYED_SINGLE_CALLER, "calls_per_s", 10.0, True),
        (GRPCIO, KEYED, "calls_per_s", 10.0, True),
        (GRPCIO, KEYED, "server_us_per_call", 1_001.9, True),
        (GRPCIO, KEYED, "server_us_per_call", 1_002.1, False),
        (GRPCIO, KEYED_SINGLE_CALLER, "p50_ms", 1_031.0, False),
    ],
)
def test_gates_bound_how_much_worse_the_new_side_is(
    ingress: str, workload: str, figure: str, new: float, passed: bool
) -> None:
    """The old side has 1,000 of everything; a gate bounds only the worse direction."""
    rows = compare_figures(abba_rounds(ingress, workload, figure, [1_000.0] * 2, [new] * 2))
    assert all(row.passed for row in rows) == passed


def test_gates_compare_turns_of_the_same_round() -> None:
    """A machine that halves its pace after the first round changes both sides, not the ratio."""
    rounds = abba_rounds(
        NATIVE, KEYED, "calls_per_s", [900.0, 1_100.0, 450, 550], [1_000.0, 1_000.0, 500, 500]
    )
    (row,) = (row for row in compare_figures(rounds) if row.figure == "calls/s")
    assert row.ratio == 1.0
    assert row.old == "725 (450-1,100)"


def test_invalid_rounds_are_those_with_failures_or_without_the_store() -> None:
    """An answer without the store is cheaper, so a comparison with it is not valid."""
    rounds = abba_rounds(NATIVE, KEYED, "p50_ms", [1.0] * 2, [1.0] * 2)
    assert invalid_rounds(rounds) == []
    rounds[0]["failed"] = 3
    rounds[3]["degraded_share"] = 0.02
    assert len(invalid_rounds(rounds)) == 2


def test_comparison_table_shows_a_missing_figure_and_a_broken_gate() -> None:
    """The old checkout may not have a command that the new one has."""
    row = ComparedFigure(
        "import turnout_client", "s", "-", "0.400", None, "new < 0.3 s", passed=False
    )
    assert "| import turnout_client | s | - | 0.400 | - | new < 0.3 s | NO |" in comparison_table(
        [row]
    )


def test_before_after_needs_an_environment_in_the_older_checkout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and the command that makes the environment."""
    assert before_after.main(["--before", str(tmp_path)]) == 2
    assert "make .venv/.installed ingress" in capsys.readouterr().err
