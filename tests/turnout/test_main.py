"""Exit codes of the command line, and what goes to stdout and stderr."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata

from features.errors import OnlineStoreError
from registry.types import GateError, RegistryUnavailableError
from tests.house.sources import REPOSITORY, ROOMS
from turnout.__main__ import COMMANDS, SUMMARIES, commands_of, main, make_app
from turnout.cli.exit_codes import exit_message
from turnout.errors import ExitCode, UsageError
from turnout_client import PredictError

NEEDS_A_SYSTEM = [
    ["models"],
    ["versions", "list", "churn"],
    ["versions", "show", "churn", "2"],
    ["versions", "approve", "churn", "2", "--yes"],
    ["versions", "reject", "churn", "2"],
    ["versions", "archive", "churn", "2"],
    ["splits", "show", "churn"],
    ["splits", "set", "churn", "--production", "2"],
    ["splits", "approve", "churn", "--holdout", "5"],
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
    ["audit", "reviews"],
    ["audit", "close", "ab12", "--reason", "seen"],
    ["predict", "churn", "S1"],
    ["outcome", "ab" * 64, "churned", "1"],
    ["outcome", "churned", "1", "--model", "churn", "--key", "S1", "--at", "2026-11-30"],
    ["features", "show", "churn_profile", "S1"],
    ["restart"],
    ["debug", "workers"],
]


def exit_code_of(line: list[str]) -> int:
    """Run one command in this process; return its exit code."""
    with pytest.raises(SystemExit) as exit_info:
        main(line)
    assert isinstance(exit_info.value.code, int)
    return exit_info.value.code


@pytest.mark.parametrize("line", NEEDS_A_SYSTEM, ids=" ".join)
def test_command_without_a_system_exits_with_3_and_says_how_to_start_one(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is printed to stdout."""
    assert exit_code_of([*line, "--json", "--folder", str(tmp_path)]) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "turnout up" in printed.err


@pytest.mark.parametrize("line", [["no-such-command"], ["models", "--no-such-option"], ["predict"]])
def test_command_with_wrong_usage_exits_with_2(
    line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is printed to stdout."""
    assert exit_code_of(line) == 2
    assert capsys.readouterr().out == ""


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Item S9 of the first issue."""
    assert exit_code_of(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in (
        "up",
        "demo",
        "models",
        "versions",
        "splits",
        "rollout",
        "audit",
        "predict",
        "debug",
    ):
        assert command in shown


def test_help_has_the_line_of_each_command_without_its_module() -> None:
    """The table of lines is that of the commands' own help."""
    program: Any = typer.main.get_command(make_app())
    lines = {name: program.commands[name].help.split("\n\n")[0] for name in COMMANDS}
    assert lines == SUMMARIES


def test_help_imports_no_command_and_nothing_that_takes_long() -> None:
    """It is the first line that a person types, and each of these takes 20 to 150 ms."""
    code = (
        "import sys; from turnout.__main__ import main\n"
        "try: main([sys.argv[1]])\n"
        "except SystemExit: print(); print(*sys.modules)"
    )
    slow = {"asyncio", "duckdb", "google.protobuf", "grpc", "numpy", "pandas", "redis", "urllib3"}
    slow |= {path.split(":")[0] for path in COMMANDS.values()}
    for word in ("--help", "no-such-command"):
        printed = subprocess.check_output([sys.executable, "-c", code, word], text=True)
        loaded = set(printed.splitlines()[-1].split())
        assert "typer" in loaded
        assert loaded & slow == set(), word


def test_line_of_a_shell_that_completes_has_all_commands() -> None:
    """The words of the line are not among the arguments then."""
    code = "from turnout.__main__ import main; main([])"
    words = {
        "_TURNOUT_COMPLETE": "complete_bash",
        "COMP_WORDS": "turnout rollout ",
        "COMP_CWORD": "2",
    }
    completed = subprocess.run(
        [sys.executable, "-c", code], text=True, capture_output=True, env={**os.environ, **words}
    )
    assert "start" in completed.stdout.split(), completed


@pytest.mark.parametrize(
    ("line", "names"),
    [
        (["models", "--json"], {"models"}),
        (["--folder", "up", "models"], {"models", "up"}),
        (["--help"], set()),
        (["no-such-command"], set()),
        (["try"], set(COMMANDS)),
        (["adopt", "model.pkl"], set(COMMANDS)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_line_needs_the_commands_that_it_names(line: list[str], names: set[str]) -> None:
    """The help needs none, and two commands run others."""
    assert commands_of(line) == names


def test_no_command_takes_a_secret_on_its_command_line() -> None:
    """Everybody on a host sees the command lines of its programs; a secret is in a file."""

    def options_of(command: Any) -> Iterator[str]:  # noqa: ANN401  typer has its own click
        yield from (name for option in command.params for name in option.opts)
        for child in getattr(command, "commands", {}).values():
            yield from options_of(child)

    # The commands of turnout, and those of `python -m` in the rooms.
    options = set(options_of(typer.main.get_command(make_app())))
    for file in (path for room in ROOMS for path in (REPOSITORY / room).rglob("*.py")):
        options |= set(re.findall(r"add_argument\(\s*\"(--[a-z-]+)\"", file.read_text("utf-8")))
    assert {"--approver-token-file", "--metrics-token-file"} <= options
    secrets = {name for name in options if re.search("token|password|secret", name)}
    # This one is a folder with files.
    assert {name for name in secrets if not name.endswith("-file")} == {"--store-passwords"}


def test_readme_has_every_exit_code() -> None:
    """As many as --help has."""
    page = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    sentence = re.search(r"Exit codes are (.*?)\. `", page, re.DOTALL)
    assert sentence is not None
    assert [int(code) for code in re.findall(r"(\d) \(", sentence[1])] == list(ExitCode)


@pytest.mark.walk
@pytest.mark.parametrize(
    ("start", "unwanted"),
    [
        ("from turnout.__main__ import make_app; make_app()", "grpc numpy redis"),
        # What a command about models and versions does.
        (
            "from turnout.__main__ import make_app; make_app(['models', 'versions']);"
            "import registry.client",
            "numpy redis turnout.commands.rollout",
        ),
        ("import turnout.control", "alembic redis rich"),
        ("import gateway.__main__", "grpc redis rich"),
        ("import gateway.worker", "redis rich sqlalchemy"),
        ("import monitoring.fold.__main__", "redis rich sqlalchemy"),
    ],
    ids=["help", "models", "control", "gateway", "worker", "journal-reader"],
)
def test_start_imports_nothing_that_takes_long(start: str, unwanted: str) -> None:
    """A system starts ten processes, and each of these modules alone takes 20 to 150 ms of each."""
    slow = {"duckdb", "pandas", "scipy", "sklearn", "skl2onnx", *unwanted.split()}
    if "worker" not in start:
        slow.add("onnxruntime")
    code = f"import sys; {start}; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert slow & set(loaded) == set()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GateError("not approved"), 1),
        (RegistryUnavailableError("gone"), 3),
        (PredictError(grpc.StatusCode.NOT_FOUND, "no such model"), 1),
        (PredictError(grpc.StatusCode.UNAVAILABLE, "nothing listens"), 3),
        (OnlineStoreError("connection", "refused"), 3),
        (UsageError("contradiction"), 2),
    ],
)
def test_exit_message_gives_each_error_its_exit_code(error: Exception, code: int) -> None:
    """1 when the answer is no, 2 for wrong usage, 3 when the system cannot be reached."""
    message = exit_message(error)
    assert message is not None
    assert message.exit_code == code


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("OpenIncidentRequest.title has 5000 bytes; the most is 512", "--title has 5000 bytes"),
        ("SetStatusRequest.reason is empty; the history needs a reason", "--reason is empty"),
        ("Deployment.why has the control character U+000A at", "--reason has the control"),
        ("OpenIncidentRequest.links has 99 items", "OpenIncidentRequest.links has 99 items"),
        ("Version.reason was kept", "Version.reason was kept"),
    ],
)
def test_refused_field_is_named_by_its_option(text: str, shown: str) -> None:
    """A person typed an option, and no field of a request."""
    message = exit_message(GateError(text))
    assert message is not None
    assert message.text.startswith(shown)


def test_exit_message_has_none_for_a_bug() -> None:
    """A bug keeps its traceback."""
    assert exit_message(ZeroDivisionError()) is None


@pytest.mark.parametrize(
    ("code", "details", "text"),
    [
        (StatusCode.NOT_FOUND, "there is no model 'x'", "there is no model 'x'"),
        (StatusCode.FAILED_PRECONDITION, "ask later", "ask later"),
        (StatusCode.INTERNAL, "", "the call failed: INTERNAL"),
    ],
)
def test_answer_of_a_call_is_a_sentence(code: StatusCode, details: str, text: str) -> None:
    """The name of a status says nothing to a person; an answer without words has nothing else."""
    message = exit_message(AioRpcError(code, Metadata(), Metadata(), details))
    assert message is not None
    assert (message.text, message.exit_code) == (text, 1)
