"""The common options, wherever they stand on the line."""

from pathlib import Path

import pytest

from registry.types import UnknownActorError
from turnout.cli.context import CommandContext, common_options_first, context_from_options
from turnout.errors import NotReachableError, UsageError


def context_in(folder: Path, **values: str) -> CommandContext:
    """Return options for *folder*, the rest empty but for *values*."""
    return CommandContext(
        folder=folder,
        registry=values.get("registry", ""),
        gateway=values.get("gateway", ""),
        actor="sam",
        json=False,
    )


@pytest.mark.parametrize(
    "line",
    [
        ["models", "--json", "--folder", "here"],
        ["--folder", "here", "models", "--json"],
        ["--json", "models", "--folder", "here"],
    ],
)
def test_common_options_may_stand_anywhere(line: list[str]) -> None:
    """`turnout models --json` and `turnout --json models` are one command."""
    moved = common_options_first(line)
    assert moved[-1] == "models"
    assert sorted(moved[:-1]) == ["--folder", "--json", "here"]


def test_what_follows_two_dashes_is_left_alone() -> None:
    """A customer whose id is --json can still be asked about."""
    assert common_options_first(["predict", "churn", "--", "--json"]) == [
        "predict",
        "churn",
        "--",
        "--json",
    ]


def test_an_option_with_an_equals_sign_keeps_its_value() -> None:
    """--as=dana is one word."""
    assert common_options_first(["models", "--as=dana", "x"]) == ["--as=dana", "models", "x"]


def test_an_option_without_its_value_is_left_for_the_parser_to_refuse() -> None:
    """`turnout models --as` must not swallow anything or crash."""
    assert common_options_first(["models", "--as"]) == ["--as", "models"]


def test_the_line_wins_over_the_environment() -> None:
    """--as dana, TURNOUT_ACTOR=sam: dana asks."""
    environ = {"TURNOUT_ACTOR": "sam", "TURNOUT_FOLDER": "/there", "TURNOUT_REGISTRY": "a:1"}
    told = context_from_options("", "", "", "dana", False, environ)
    assert (told.actor, told.folder, told.registry) == ("dana", Path("/there"), "a:1")


@pytest.mark.parametrize("name", ["a\nb", "x" * 65])
def test_a_name_that_no_history_could_hold_is_refused(name: str) -> None:
    """64 printable characters; a line break would forge a second line in a table."""
    with pytest.raises(UsageError, match="1 to 64"):
        context_from_options("", "", "", name, False, {})


def test_without_a_system_the_way_out_is_said(tmp_path: Path) -> None:
    """Exit 3, and what to do about it."""
    with pytest.raises(NotReachableError, match="turnout up") as caught:
        context_in(tmp_path).registry_address()
    assert caught.value.exit == 3


def test_an_address_on_the_line_needs_no_running_system(tmp_path: Path) -> None:
    """--gateway reaches any host."""
    assert context_in(tmp_path, gateway="far:5").gateway_address() == "far:5"


def test_a_token_lies_in_a_file_or_in_the_environment_and_never_on_the_line(tmp_path: Path) -> None:
    """The line's file, the environment's file, the environment's own; it is never shown."""
    for name in ("mine", "theirs"):
        (tmp_path / name).write_text(f"secret-of-{name}\n")
    environ = {"TURNOUT_TOKEN": "plain"}
    assert context_from_options("", "", "", "dana", False, environ).token == "plain"
    environ["TURNOUT_TOKEN_FILE"] = str(tmp_path / "theirs")
    assert context_from_options("", "", "", "dana", False, environ).token == "secret-of-theirs"
    told = context_from_options("", "", "", "dana", False, environ, str(tmp_path / "mine"))
    assert told.token == "secret-of-mine"
    assert "secret" not in repr(told)
    assert context_from_options("", "", "", "dana", False, {}).token is None
    with pytest.raises(UnknownActorError, match="cannot be read"):
        context_from_options("", "", "", "dana", False, {}, str(tmp_path / "nobody's"))
