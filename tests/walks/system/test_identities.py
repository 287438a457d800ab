"""A whole system in which names are not taken on trust: everybody shows a token."""

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
    """The system, and everybody's token in a file of his own."""

    def __init__(self, whole: RunningSystem, tokens: Path) -> None:
        self.whole = whole
        self._tokens = tokens

    def token(self, name: str) -> str:
        """Where *name*'s token lies."""
        return str(self._tokens / name)

    def turnout(self, name: str, *line: str, exit_code: int = 0) -> Any:  # noqa: ANN401  any JSON
        """Run one command as *name*, with *name*'s token."""
        told = (*line, "--token-file", self.token(name))
        return self.whole.turnout(*told, actor=name, exit_code=exit_code)


@pytest.fixture(scope="module")
def identified_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentifiedSystem]:
    """`turnout up --identities`, with a model in production."""
    folder: Path = tmp_path_factory.mktemp("office")
    (folder / "tokens").mkdir()
    identities = {}
    for name, roles in PEOPLE.items():
        (folder / "tokens" / name).write_text(f"secret-of-{name}\n")
        digest = hashlib.sha256(f"secret-of-{name}".encode()).hexdigest()
        identities[digest] = {"actor": name, "roles": roles}
    people = folder / "people.json"
    people.write_text(json.dumps(identities))
    with turnout_up(folder / "state", "--identities", str(people)) as whole:
        made = IdentifiedSystem(whole, folder / "tokens")
        files = folder / "files"
        files.mkdir()
        for name, content in tiny_files(MODEL).items():
            (files / name).write_bytes(content)
        label = made.turnout("dana", "versions", "register", MODEL, str(files))["label"]
        line = ("versions", "approve", MODEL, label, "--policy", "initial", "--yes")
        made.turnout("gabriel", *line)
        made.turnout("sam", "splits", "preload", MODEL, label)
        made.turnout("sam", "splits", "set", MODEL, "--production", label)
        yield made


def test_gateway_controller_and_people_work_by_their_tokens(
    identified_system: IdentifiedSystem,
) -> None:
    """Workers joined and load; a drill is approved by another's token, found, and nobody harmed."""
    with drill_callers(identified_system.whole.addresses.gateway, MODEL, 100.0) as customers:
        told = identified_system.turnout(
            "sam", "drill", MODEL, "--kind", "failing-100", "--approver", "gabriel",
            "--approver-token-file", identified_system.token("gabriel"), "--seconds", "60",
        )  # fmt: skip
    assert told["found"], told
    assert customers.totals["failed"] == 0
    entries = identified_system.turnout("dana", "audit", "list")
    who = {entry["action"]: entry["actor"] for entry in entries}
    assert (who["register"], who["approve"]) == ("sam", "gabriel")
    assert {entry["actor"] for entry in entries} >= {"dana", "gabriel", "sam", "rollout"}


def test_without_a_token_or_with_anothers_nothing_is_done(
    identified_system: IdentifiedSystem,
) -> None:
    """No token, an author who deploys, a file with two words: refused, in words."""
    whole = identified_system.whole
    line = ("splits", "set", MODEL, "--holdout", "1")
    assert "send authorization" in whole.turnout(*line, exit_code=1)
    assert "needs" in identified_system.turnout("dana", *line, exit_code=1)
    muddled = Path(identified_system.token("sam")).with_name("muddled")
    muddled.write_text("two words\n")
    assert "holds 2 words" in identified_system.turnout("muddled", *line, exit_code=1)
    tokens = whole.folder / "tokens"
    for file in tokens.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    settings = json.loads((whole.folder / "gateway.json").read_text())
    assert settings["registry_token_file"] == str(tokens / "gateway.token")
