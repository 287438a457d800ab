"""The command line as a whole: exit codes, and where words go."""

from pathlib import Path

import grpc
import pytest

from features.errors import OnlineStoreError
from registry.types import GateError, RegistryUnavailableError
from turnout.__main__ import main
from turnout.cli.exit_codes import exit_message
from turnout.errors import UsageError
from turnout_client import PredictError

NEEDS_A_SYSTEM = [
    ["models"],
    ["versions", "list", "churn"],
    ["versions", "show", "churn", "2"],
    ["versions", "approve", "churn", "2", "--yes"],
    ["versions", "archive", "churn", "2"],
    ["splits", "show", "churn"],
    ["splits", "set", "churn", "--production", "2"],
    ["splits", "preload", "churn", "2"],
    ["splits", "which", "churn", "S1"],
    ["rollout", "policies"],
    ["rollout", "start", "churn", "2"],
    ["rollout", "status", "churn", "--watch"],
    ["rollout", "explain", "churn"],
    ["rollout", "history"],
    ["rollout", "abort", "churn"],
    ["rollout", "promote", "churn"],
    ["rollout", "pause", "churn"],
    ["rollout", "resume", "churn"],
    ["audit", "list"],
    ["audit", "verify"],
    ["predict", "churn", "S1"],
    ["outcome", "ab", "churned", "1"],
    ["features", "show", "churn_profile", "S1"],
]


def left_with(line: list[str]) -> int:
    """Run one command in this process; return its exit code."""
    with pytest.raises(SystemExit) as left:
        main(line)
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.mark.parametrize("line", NEEDS_A_SYSTEM, ids=" ".join)
def test_without_a_system_every_command_leaves_with_3_and_the_way_out(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing on stdout, one line on stderr."""
    assert left_with([*line, "--json", "--folder", str(tmp_path)]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert "turnout up" in said.err


@pytest.mark.parametrize("line", [["no-such-command"], ["models", "--no-such-option"], ["predict"]])
def test_a_wrong_line_leaves_with_2(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And stdout stays clean."""
    assert left_with(line) == 2
    assert capsys.readouterr().out == ""


def test_help_names_every_group(capsys: pytest.CaptureFixture[str]) -> None:
    """What S9 promises."""
    assert left_with(["--help"]) == 0
    shown = capsys.readouterr().out
    for group in ("up", "demo", "models", "versions", "splits", "rollout", "audit", "predict"):
        assert group in shown


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GateError("not approved"), 1),
        (RegistryUnavailableError("gone"), 3),
        (PredictError(grpc.StatusCode.NOT_FOUND, "no such model"), 1),
        (PredictError(grpc.StatusCode.UNAVAILABLE, "nobody listens"), 3),
        (OnlineStoreError("connection", "refused"), 3),
        (UsageError("contradiction"), 2),
    ],
)
def test_each_error_has_its_exit_code(error: Exception, code: int) -> None:
    """The answer is no: 1; not reachable: 3."""
    known = exit_message(error)
    assert known is not None
    assert known.exit_code == code


def test_a_mistake_of_ours_keeps_its_traceback() -> None:
    """It is not dressed up as an operator's."""
    assert exit_message(ZeroDivisionError()) is None
