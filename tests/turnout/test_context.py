"""The common options and the command context that is made from them."""

import os
from pathlib import Path

import pytest

from project.errors import ProjectError
from registry.types import UnknownActorError
from tests.project.project_files import write_project
from turnout.__main__ import main
from turnout.cli.context import CommandContext, common_options_first, context_from_options
from turnout.errors import NotReachableError, OperatorError, UsageError


def context_in(folder: Path, **values: str) -> CommandContext:
    """Return a context for *folder*; all other fields are empty but for *values*."""
    return CommandContext(
        folder=folder,
        registry=values.get("registry", ""),
        gateway=values.get("gateway", ""),
        actor="sam",
        json=False,
    )


def test_address_without_a_port_is_refused(tmp_path: Path) -> None:
    """Otherwise gRPC would call port 443 of the host."""
    context = context_in(tmp_path, registry="control-host", gateway="127.0.0.1")
    door = context_from_options("", "unix:/tmp/door/registry", "", "dana", False, {})
    assert door.registry_address() == "unix:/tmp/door/registry"
    with pytest.raises(UsageError, match="the registry is 'control-host'; it needs host and port"):
        context.registry_address()
    with pytest.raises(UsageError, match=r"the gateway is '127.0.0.1'; it needs host and port"):
        context.gateway_address()


@pytest.mark.parametrize(
    "line",
    [
        ["models", "--json", "--folder", "here"],
        ["--folder", "here", "models", "--json"],
        ["--json", "models", "--folder", "here"],
    ],
)
def test_common_options_first_moves_options_from_anywhere_on_the_line(line: list[str]) -> None:
    """`turnout models --json` and `turnout --json models` are one command."""
    moved = common_options_first(line)
    assert moved[-1] == "models"
    assert sorted(moved[:-1]) == ["--folder", "--json", "here"]


def test_common_options_first_leaves_arguments_after_two_dashes() -> None:
    """A customer whose id is `--json` can be scored."""
    assert common_options_first(["predict", "churn", "--", "--json"]) == [
        "predict",
        "churn",
        "--",
        "--json",
    ]


def test_common_options_first_keeps_the_value_after_an_equals_sign() -> None:
    """`--as=dana` is one argument."""
    assert common_options_first(["models", "--as=dana", "x"]) == ["--as=dana", "models", "x"]


def test_common_options_first_leaves_an_option_without_value_to_the_parser() -> None:
    """`turnout models --as` is moved and nothing else."""
    assert common_options_first(["models", "--as"]) == ["--as", "models"]


def test_context_prefers_options_to_the_environment() -> None:
    """With --as dana and TURNOUT_ACTOR=sam, dana is the actor."""
    environ = {"TURNOUT_ACTOR": "sam", "TURNOUT_FOLDER": "/there", "TURNOUT_REGISTRY": "a:1"}
    context = context_from_options("", "", "", "dana", False, environ)
    assert (context.actor, context.folder, context.registry) == ("dana", Path("/there"), "a:1")


@pytest.mark.parametrize("name", ["a\nb", "x" * 65])
def test_context_refuses_an_actor_name_that_the_history_cannot_hold(name: str) -> None:
    """A name has 1 to 64 printable characters; a line break would forge a line in a table."""
    with pytest.raises(UsageError, match="1 to 64"):
        context_from_options("", "", "", name, False, {})


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found"), OSError("no name")])
def test_user_without_a_name_acts_under_the_user_id(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container the user id often has no name, and Python says so in two ways."""

    def fail() -> str:
        raise error

    monkeypatch.setattr("getpass.getuser", fail)
    assert context_from_options("", "", "", "", False, {}).actor == f"uid-{os.getuid()}"
    monkeypatch.setattr("getpass.getuser", lambda: "jürgen")
    assert context_from_options("", "", "", "", False, {}).actor == f"uid-{os.getuid()}"
    monkeypatch.setattr("getpass.getuser", lambda: "dana")
    assert context_from_options("", "", "", "", False, {}).actor == "dana"


def test_context_says_how_to_start_a_system_when_none_runs(tmp_path: Path) -> None:
    """The exit code is 3, and the message has the command."""
    with pytest.raises(NotReachableError, match="turnout up") as caught:
        context_in(tmp_path).registry_address()
    assert caught.value.exit == 3


def test_context_with_a_given_address_needs_no_running_system(tmp_path: Path) -> None:
    """--gateway may name any host."""
    assert context_in(tmp_path, gateway="far:5").gateway_address() == "far:5"


def test_context_reads_the_token_from_a_file_or_the_environment(tmp_path: Path) -> None:
    """--token-file wins over TURNOUT_TOKEN_FILE, and that over TURNOUT_TOKEN; none is in repr."""
    for name in ("option", "environment"):
        (tmp_path / name).write_text(f"secret-of-{name}\n")
    environ = {"TURNOUT_TOKEN": "plain"}
    assert context_from_options("", "", "", "dana", False, environ).token == "plain"
    environ["TURNOUT_TOKEN_FILE"] = str(tmp_path / "environment")
    assert context_from_options("", "", "", "dana", False, environ).token == "secret-of-environment"
    context = context_from_options("", "", "", "dana", False, environ, str(tmp_path / "option"))
    assert context.token == "secret-of-option"
    assert "secret" not in repr(context)
    assert context_from_options("", "", "", "dana", False, {}).token is None
    with pytest.raises(UnknownActorError, match="cannot be read"):
        context_from_options("", "", "", "dana", False, {}, str(tmp_path / "missing"))


def test_context_finds_the_certificate_of_the_registry(tmp_path: Path) -> None:
    """The option wins over the environment, and a given registry has none of its own."""
    environ = {"TURNOUT_REGISTRY_CERTIFICATE": "environment.crt"}
    context = context_from_options("", "far:7001", "", "dana", False, environ)
    assert context.certificate() == Path("environment.crt")
    context = context_from_options("", "", "", "dana", False, environ, "", "option.crt")
    assert context.certificate() == Path("option.crt")
    assert context_in(tmp_path, registry="far:7001").certificate() is None


def test_command_with_a_token_and_no_certificate_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The token goes nowhere; the message names the option, and the exit code is 2."""
    (tmp_path / "token").write_text("secret\n")
    line = ["models", "--registry", "127.0.0.1:1", "--token-file", str(tmp_path / "token")]
    with pytest.raises(SystemExit) as refused:
        main(line)
    assert refused.value.code == 2
    assert "--registry-certificate" in capsys.readouterr().err


def test_context_takes_addresses_and_secrets_from_the_environment_of_a_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options win over the environment, and secrets are read only when they are needed."""
    write_project(
        tmp_path,
        {
            "environments/prod.toml": 'registry = "far:7001"\nregistry_certificate = "far.crt"\n'
            'token = "${env:SHOP_TOKEN}"\nstore = "unix:///far.sock"\n'
            'store_password = "${file:secret}"\noffline = "rows"\n'
        },
    )
    monkeypatch.chdir(tmp_path / "views")
    monkeypatch.delenv("SHOP_TOKEN", raising=False)
    # Addresses and paths are there without any secret.
    context = context_from_options("", "", "", "dana", False, {"TURNOUT_ENV": "prod"})
    assert context.registry_address() == "far:7001"
    assert context.certificate() == tmp_path / "far.crt"
    assert context.folder == tmp_path / ".turnout"
    assert context.offline_folder() == tmp_path / "rows"
    with pytest.raises(ProjectError, match="SHOP_TOKEN is not set"):
        context.bearer_token()
    with pytest.raises(ProjectError, match="secret}, which cannot be read"):
        context.store_url("reader")
    monkeypatch.setenv("SHOP_TOKEN", "from-env")
    (tmp_path / "secret").write_text("pass word\n")
    assert context.bearer_token() == "from-env"
    assert context.store_url("reader") == "unix://reader:pass%20word@/far.sock"
    # What is given on the command line wins.
    options = context_from_options("here", "near:1", "", "dana", False, {}, store="redis://near")
    assert (options.registry_address(), options.certificate()) == ("near:1", None)
    assert options.store_url("reader") == "redis://near"
    # The environment's token is for the environment's registry, and not for one in plain text.
    near = context_from_options("", "near:1", "", "dana", False, {"TURNOUT_ENV": "prod"})
    assert near.bearer_token() is None
    assert near.required_environment().variables_of("token") == ["SHOP_TOKEN"]
    assert options.environment is not None
    assert options.environment.name == "dev"


def test_context_without_a_project_says_what_needs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment without a project is a wrong option; a project is not needed otherwise."""
    monkeypatch.chdir(tmp_path)
    context = context_from_options("", "near:1", "", "dana", False, {})
    assert (context.project, context.environment) == (None, None)
    assert context.registry_address() == "near:1"
    with pytest.raises(OperatorError, match="turnout init NAME"):
        context.required_environment()
    with pytest.raises(UsageError, match="--env prod belongs to a project"):
        context_from_options("", "", "", "dana", False, {}, env="prod")
