"""A running system with an identities file: every person and service needs a token."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.walks.drill_callers import drill_callers
from tests.walks.identified_system import MODEL, IdentifiedSystem, identified_system

pytestmark = pytest.mark.walk

PEOPLE = {"dana": ["author"], "gabriel": ["approver"], "sam": ["author", "operator"]}


@pytest.fixture(scope="module")
def system_of_three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentifiedSystem]:
    """`turnout up --identities` with three people."""
    folder: Path = tmp_path_factory.mktemp("identities")
    with identified_system(
        folder, PEOPLE, author="dana", approver="gabriel", operator="sam"
    ) as system:
        yield system


def test_system_with_identities_accepts_the_tokens_of_people_and_services(
    system_of_three: IdentifiedSystem,
) -> None:
    """Workers load versions, and a drill works with the tokens of two people."""
    with drill_callers(system_of_three.system.addresses.gateway, MODEL, 100.0) as customers:
        result = system_of_three.turnout(
            "sam", "drill", MODEL, "--kind", "failing-100", "--approver", "gabriel",
            "--approver-token-file", system_of_three.token("gabriel"), "--seconds", "200",
        )  # fmt: skip
    assert result["found"], result
    assert customers.totals["failed"] == 0
    entries = system_of_three.turnout("dana", "audit", "list")
    actors = {entry["action"]: entry["actor"] for entry in entries}
    assert (actors["register"], actors["approve"]) == ("sam", "gabriel")
    assert {entry["actor"] for entry in entries} >= {"dana", "gabriel", "sam", "rollout"}


def test_system_with_identities_shows_its_pages_to_the_turnout_command(
    system_of_three: IdentifiedSystem,
) -> None:
    """It finds the observer's token beside the addresses."""
    assert system_of_three.turnout("dana", "debug", "workers")
    assert {row["state"] for row in system_of_three.system.workers()} >= {"serving"}


def test_registry_with_identities_refuses_missing_and_invalid_tokens(
    system_of_three: IdentifiedSystem,
) -> None:
    """A missing token, an author's token and a token file with two words are refused."""
    system = system_of_three.system
    line = ("splits", "set", MODEL, "--holdout", "1")
    assert "send authorization" in system.turnout(*line, exit_code=1)
    assert "needs" in system_of_three.turnout("dana", *line, exit_code=1)
    two_words = Path(system_of_three.token("sam")).with_name("two_words")
    two_words.write_text("two words\n")
    assert "holds 2 words" in system_of_three.turnout("two_words", *line, exit_code=1)
    tokens = system.folder / "tokens"
    for file in tokens.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    settings = json.loads((system.folder / "gateway.json").read_text())
    assert settings["registry_token_file"] == str(tokens / "gateway.token")
