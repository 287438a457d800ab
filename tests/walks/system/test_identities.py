"""A running system with an identities file: every person and service needs a token."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import tiny_files
from tests.walks.drill_callers import drill_callers
from tests.walks.running_system import RunningSystem, turnout_up

pytestmark = pytest.mark.walk

MODEL = "tiny"
PEOPLE = {"dana": ["author"], "gabriel": ["approver"], "sam": ["author", "operator"]}


class IdentifiedSystem:
    """A running system, and a file with the token of each person."""

    def __init__(self, system: RunningSystem, tokens: Path) -> None:
        self.system = system
        self._tokens = tokens

    def token(self, name: str) -> str:
        """Return the path of the file with the token of *name*."""
        return str(self._tokens / name)

    def turnout(self, name: str, *line: str, exit_code: int = 0) -> Any:  # noqa: ANN401  any JSON
        """Run one command as *name*, with *name*'s token."""
        arguments = (*line, "--token-file", self.token(name))
        return self.system.turnout(*arguments, actor=name, exit_code=exit_code)


@pytest.fixture(scope="module")
def identified_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentifiedSystem]:
    """`turnout up --identities`, with a model in production."""
    folder: Path = tmp_path_factory.mktemp("identities")
    (folder / "tokens").mkdir()
    identities = {}
    for name, roles in PEOPLE.items():
        (folder / "tokens" / name).write_text(f"secret-of-{name}\n")
        digest = hashlib.sha256(f"secret-of-{name}".encode()).hexdigest()
        identities[digest] = {"actor": name, "roles": roles}
    people = folder / "people.json"
    people.write_text(json.dumps(identities))
    with turnout_up(folder / "state", "--identities", str(people)) as system:
        identified = IdentifiedSystem(system, folder / "tokens")
        files = folder / "files"
        files.mkdir()
        for name, content in tiny_files(MODEL).items():
            (files / name).write_bytes(content)
        label = identified.turnout("dana", "versions", "register", MODEL, str(files))["label"]
        line = ("versions", "approve", MODEL, label, "--policy", "initial", "--yes")
        identified.turnout("gabriel", *line)
        identified.turnout("sam", "splits", "preload", MODEL, label)
        identified.turnout("sam", "splits", "set", MODEL, "--production", label)
        yield identified


def test_system_with_identities_accepts_the_tokens_of_people_and_services(
    identified_system: IdentifiedSystem,
) -> None:
    """Workers load versions, and a drill works with the tokens of two people."""
    with drill_callers(identified_system.system.addresses.gateway, MODEL, 100.0) as customers:
        result = identified_system.turnout(
            "sam", "drill", MODEL, "--kind", "failing-100", "--approver", "gabriel",
            "--approver-token-file", identified_system.token("gabriel"), "--seconds", "60",
        )  # fmt: skip
    assert result["found"], result
    assert customers.totals["failed"] == 0
    entries = identified_system.turnout("dana", "audit", "list")
    actors = {entry["action"]: entry["actor"] for entry in entries}
    assert (actors["register"], actors["approve"]) == ("sam", "gabriel")
    assert {entry["actor"] for entry in entries} >= {"dana", "gabriel", "sam", "rollout"}


def test_registry_with_identities_refuses_missing_and_invalid_tokens(
    identified_system: IdentifiedSystem,
) -> None:
    """A missing token, an author's token and a token file with two words are refused."""
    system = identified_system.system
    line = ("splits", "set", MODEL, "--holdout", "1")
    assert "send authorization" in system.turnout(*line, exit_code=1)
    assert "needs" in identified_system.turnout("dana", *line, exit_code=1)
    two_words = Path(identified_system.token("sam")).with_name("two_words")
    two_words.write_text("two words\n")
    assert "holds 2 words" in identified_system.turnout("two_words", *line, exit_code=1)
    tokens = system.folder / "tokens"
    for file in tokens.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    settings = json.loads((system.folder / "gateway.json").read_text())
    assert settings["registry_token_file"] == str(tokens / "gateway.token")
