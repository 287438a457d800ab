"""A running system with an identities file: every person and service needs a token."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.tiny_models import tiny_files
from tests.walks.running_system import RunningSystem, turnout_up

MODEL = "tiny"


class IdentifiedSystem:
    """A running system, and a file with the token of each person."""

    def __init__(self, system: RunningSystem, tokens: Path) -> None:
        self.system = system
        self._tokens = tokens

    def token(self, name: str) -> str:
        """Return the path of the file with the token of *name*."""
        return str(self._tokens / name)

    def secret(self, name: str) -> str:
        """Return the token of *name*."""
        return Path(self.token(name)).read_text(encoding="ascii").strip()

    def metadata(self, name: str) -> list[tuple[str, str]]:
        """Return the call metadata with the token of *name*."""
        return [("authorization", f"Bearer {self.secret(name)}")]

    def turnout(self, name: str, *line: str, exit_code: int = 0) -> Any:  # noqa: ANN401  any JSON
        """Run one command as *name*, with *name*'s token."""
        arguments = (*line, "--token-file", self.token(name))
        return self.system.turnout(*arguments, actor=name, exit_code=exit_code)

    def register(self, name: str, folder: Path, files: Mapping[str, bytes] | None = None) -> str:
        """Register *files*, or else a tiny version, as *name*; return the label."""
        folder.mkdir(parents=True)
        for file, content in (files or tiny_files(MODEL)).items():
            (folder / file).write_bytes(content)
        label: str = self.turnout(name, "versions", "register", MODEL, str(folder))["label"]
        return label


@contextmanager
def identified_system(
    folder: Path,
    people: Mapping[str, Sequence[str]],
    *,
    author: str,
    approver: str,
    operator: str,
    options: Sequence[str] = (),
) -> Iterator[IdentifiedSystem]:
    """Run `turnout up --identities` with *people* (name -> roles), and version 1 in production.

    options  further options of `turnout up`.
    """
    # The identities file has the SHA-256 of each token.
    (folder / "tokens").mkdir(parents=True)
    identities = {}
    for name, roles in people.items():
        (folder / "tokens" / name).write_text(f"secret-of-{name}\n")
        digest = hashlib.sha256(f"secret-of-{name}".encode()).hexdigest()
        identities[digest] = {"actor": name, "roles": list(roles)}
    file = folder / "people.json"
    file.write_text(json.dumps(identities))
    # Version 1 becomes production.
    with turnout_up(folder / "state", "--identities", str(file), *options) as system:
        identified = IdentifiedSystem(system, folder / "tokens")
        label = identified.register(author, folder / "files")
        line = ("versions", "approve", MODEL, label, "--policy", "initial", "--yes")
        identified.turnout(approver, *line)
        identified.turnout(operator, "splits", "preload", MODEL, label)
        identified.turnout(operator, "splits", "set", MODEL, "--production", label)
        yield identified
