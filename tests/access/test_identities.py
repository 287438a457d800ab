"""Tests of identities files: what they may hold, when a token ends, and how a change counts."""

import hashlib
import json
import logging
from pathlib import Path

import pytest

from access.identities import (
    ForbiddenError,
    IdentitiesFileError,
    IdentitiesFiles,
    Identity,
    UnidentifiedError,
    bearer_token,
    believed_identity,
    read_identities,
)
from tests.access.identity_files import write_identities

KEY = "a" * 64


class Clocks:
    """A wall clock and a monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.unix_s = 1_800_000_000.0
        self.monotonic_s = 0.0

    def open(self, *files: Path) -> IdentitiesFiles:
        """Open identities files with these clocks."""
        return IdentitiesFiles(
            files, unix_s=lambda: self.unix_s, monotonic_s=lambda: self.monotonic_s
        )


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}x", '{"ab": {"actor": "ann", "roles": []}}', f'{{"{KEY}": {{}}}}',
     f'{{"{KEY}": {{"actor": "ann", "roles": ["god"]}}}}',
     f'{{"{KEY}": {{"actor": "ann", "roles": "author"}}}}',
     f'{{"{KEY}": {{"actor": 7, "roles": []}}}}',
     f'{{"{KEY}": {{"actor": "ann", "roles": [], "expires": "soon"}}}}',
     f'{{"{KEY}": {{"actor": "ann", "roles": [], "expires": 7}}}}', "[" * 100_000],
)  # fmt: skip
def test_identities_file_with_a_wrong_entry_is_refused(content: str, tmp_path: Path) -> None:
    """A file that is partly right is refused as well."""
    path = tmp_path / "identities.json"
    path.write_text(content)

    with pytest.raises(IdentitiesFileError, match=r"identities\.json"):
        read_identities([path])


@pytest.mark.parametrize("other", ["Amy", "AMY", "\uff41\uff4d\uff59", "\uff41My"])
def test_identities_refuse_two_names_that_look_alike(other: str, tmp_path: Path) -> None:
    """Two spellings would be two people, and each could approve the other's versions."""
    first = write_identities(tmp_path / "a.json", amy=["author"])
    second = write_identities(tmp_path / "b.json", **{other: ["approver"]})

    with pytest.raises(IdentitiesFileError, match=f"'amy' and '{other}' look alike"):
        read_identities([first, second])


def test_identities_take_two_tokens_of_one_name(tmp_path: Path) -> None:
    """A new token is given out before the old one ends."""
    path = tmp_path / "i.json"
    path.write_text(json.dumps({c * 64: {"actor": "ann", "roles": ["author"]} for c in ("a", "b")}))

    assert len(read_identities([path])) == 2
    with pytest.raises(IdentitiesFileError, match="is in another file"):
        read_identities([path, path])


@pytest.mark.parametrize(
    ("expires", "unix_s"),
    [("2027-01-15", 1_799_971_200), ("2027-01-15T08:00:00Z", 1_800_000_000),
     ("2027-01-15T09:00:00+01:00", 1_800_000_000), ("2027-01-15T08:00:00", 1_800_000_000)],
)  # fmt: skip
def test_identities_refuse_a_token_from_the_moment_it_expires(
    expires: str, unix_s: float, tmp_path: Path
) -> None:
    """A date is its first instant, and a time without a zone is UTC."""
    clocks = Clocks()
    file = write_identities(tmp_path / "i.json", {"ann": expires}, ann=["author"])
    identities = clocks.open(file)

    clocks.unix_s = unix_s - 1
    assert identities.identify("ann-token").actor == "ann"
    clocks.unix_s = unix_s
    with pytest.raises(UnidentifiedError, match="'ann' expired at 2027-01-15"):
        identities.identify("ann-token")


def test_identities_are_read_again_when_a_file_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At most once a second. A broken file revokes nobody, and the log says so."""
    clocks, file = Clocks(), tmp_path / "i.json"
    identities = clocks.open(write_identities(file, ann=["author"], bob=["approver"]))
    # Bob is taken out: within the second he is still known, after it he is not.
    write_identities(file, ann=["author"])
    assert identities.identify("bob-token").actor == "bob"
    clocks.monotonic_s += 1.0
    with pytest.raises(UnidentifiedError, match="not known here"):
        identities.identify("bob-token")
    # A broken file and a missing file.
    with caplog.at_level(logging.WARNING):
        file.write_text("{")
        clocks.monotonic_s += 1.0
        assert identities.identify("ann-token").actor == "ann"
        file.unlink()
        clocks.monotonic_s += 1.0
        assert identities.identify("ann-token").actor == "ann"
    assert [record.message[:19] for record in caplog.records] == ["IDENTITIES NOT READ"] * 2


def test_identities_have_only_hashes_of_tokens(tmp_path: Path) -> None:
    """The hash itself is no token."""
    identities = Clocks().open(write_identities(tmp_path / "i.json", ann=["author"]))

    with pytest.raises(UnidentifiedError):
        identities.identify(hashlib.sha256(b"ann-token").hexdigest())


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ([], "send authorization"),
        ([("authorization", "ann-token")], "send authorization"),
        ([("authorization", "bearer ann-token")], "send authorization"),
        ([("authorization", "Bearer ")], "send authorization"),
        ([("authorization", b"Bearer ann-token")], "send authorization"),
        ([("authorization", "Bearer ann-token"), ("authorization", "Bearer ann-token")], "2 times"),
    ],
)
def test_bearer_token_is_sent_once_and_as_bearer(
    metadata: list[tuple[str, str | bytes]], why: str
) -> None:
    """A bare token and two headers are refused: two readers could read two people from them."""
    with pytest.raises(UnidentifiedError, match=why):
        bearer_token(metadata)


def test_believed_identity_decodes_percent_encoded_names() -> None:
    """Metadata is ASCII, and names need not be."""
    assert believed_identity([("x-turnout-actor", "Zo%C3%AB")]).actor == "Zoë"


@pytest.mark.parametrize("actor", ["x" * 65, "a\nb", " ann", "%00"])
def test_believed_identity_refuses_what_is_no_name(actor: str) -> None:
    """Names of 1 to 64 printable characters stand in the history."""
    with pytest.raises(UnidentifiedError, match="1 to 64 printable"):
        believed_identity([("x-turnout-actor", actor)])


def test_identity_speaks_for_the_gateway_of_its_own_token_only() -> None:
    """Without tokens every name is believed, as it is for people."""
    Identity("anybody", frozenset()).check_speaks_for("gateway-1")
    Identity("gateway-1", frozenset({"gateway"}), proven=True).check_speaks_for("gateway-1")
    for actor, role in (("gateway-2", "gateway"), ("gateway-1", "approver")):
        with pytest.raises(ForbiddenError, match="speaks for that gateway"):
            Identity(actor, frozenset({role}), proven=True).check_speaks_for("gateway-1")
