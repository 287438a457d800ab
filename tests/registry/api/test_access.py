"""Tests of access control: each RPC has one rule, and an RPC without a rule is refused."""

import hashlib
import json
from pathlib import Path

import pytest

from registry.api.access import ROLES, RULES, Access, Identity, read_identities
from registry.api.rpc import SERVICE
from registry.api.service import RegistryService
from registry.types import NotAllowedError, RegistryFaultError, UnknownActorError

RPCS = [method.name for method in SERVICE.methods]


def write_identities(path: Path, **roles: list[str]) -> Path:
    """Write an identities file in which each person's token is the name and `-token`."""
    path.write_text(
        json.dumps(
            {
                hashlib.sha256(f"{actor}-token".encode()).hexdigest(): {
                    "actor": actor,
                    "roles": names,
                }
                for actor, names in roles.items()
            }
        )
    )
    return path


def bearer_metadata(actor: str) -> list[tuple[str, str | bytes]]:
    """Metadata with the person's token, and another name that must be ignored."""
    return [("authorization", f"Bearer {actor}-token"), ("x-turnout-actor", "root")]


def test_access_has_a_rule_for_every_rpc() -> None:
    """Each RPC has a method of RegistryService as well."""
    assert set(RULES) == set(RPCS)
    assert [name for name in RPCS if not hasattr(RegistryService, name)] == []


def test_access_refuses_an_rpc_without_a_rule() -> None:
    """A caller with every role is refused as well."""
    with pytest.raises(NotAllowedError, match="there is none"):
        Access().authorise("DropEverything", [("x-turnout-actor", "ann")])


@pytest.mark.parametrize("rpc", RPCS)
@pytest.mark.parametrize("role", sorted(ROLES))
def test_access_takes_name_and_roles_from_the_token(rpc: str, role: str, tmp_path: Path) -> None:
    """Each RPC is tried with each single role."""
    access = Access(read_identities(write_identities(tmp_path / "i.json", ann=[role])))

    if role in RULES[rpc].roles:
        assert access.authorise(rpc, bearer_metadata("ann")) == Identity("ann", frozenset({role}))
    else:
        with pytest.raises(NotAllowedError, match=f"{rpc} needs .*'ann' is {role}"):
            access.authorise(rpc, bearer_metadata("ann"))


@pytest.mark.parametrize("metadata", [[], bearer_metadata("eve"), [("authorization", "Bearer ")]])
def test_access_refuses_every_rpc_without_a_known_token(
    metadata: list[tuple[str, str | bytes]], tmp_path: Path
) -> None:
    """Reads are refused too, and names alone are not believed."""
    access = Access(read_identities(write_identities(tmp_path / "i.json", ann=["author"])))

    with pytest.raises(UnknownActorError):
        access.authorise("ListModels", metadata)


@pytest.mark.parametrize("actor", ["", "x" * 65, "a\nb", " ann", "%00"])
def test_access_requires_a_printable_name_for_changes(actor: str) -> None:
    """Without tokens the name must have 1 to 64 printable characters."""
    with pytest.raises(UnknownActorError, match="1 to 64 printable"):
        Access().authorise("Deploy", [("x-turnout-actor", actor)])


def test_access_decodes_percent_encoded_names() -> None:
    """Metadata is ASCII, and names need not be."""
    assert Access().authorise("Deploy", [("x-turnout-actor", "Zo%C3%AB")]).actor == "Zoë"


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}x", '{"ab": {"actor": "ann", "roles": []}}', '{"' + "a" * 64 + '": {}}',
     '{"' + "a" * 64 + '": {"actor": "ann", "roles": ["god"]}}'],
)  # fmt: skip
def test_access_refuses_a_wrong_identities_file(content: str, tmp_path: Path) -> None:
    """A file that is partly right is refused as well."""
    path = tmp_path / "identities.json"
    path.write_text(content)

    with pytest.raises(RegistryFaultError, match=r"identities\.json"):
        read_identities(path)
