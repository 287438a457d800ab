"""Who may do what: one rule an RPC, and no rule means no."""

import hashlib
import json
from pathlib import Path

import pytest

from registry.api.access import ROLES, RULES, Access, Identity, read_identities
from registry.api.rpc import SERVICE
from registry.api.service import RegistryService
from registry.types import NotAllowedError, RegistryFaultError, UnknownActorError

RPCS = [method.name for method in SERVICE.methods]


def identities(path: Path, **roles: list[str]) -> Path:
    """A file in which each person's token is their name and `-token`."""
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


def bearer(actor: str) -> list[tuple[str, str | bytes]]:
    """What that person sends; the claimed name is somebody else's."""
    return [("authorization", f"Bearer {actor}-token"), ("x-turnout-actor", "root")]


def test_every_rpc_has_a_rule_and_a_method() -> None:
    """A new RPC without a rule fails here, before it is refused to everybody."""
    assert set(RULES) == set(RPCS)
    assert [name for name in RPCS if not hasattr(RegistryService, name)] == []


def test_an_rpc_without_a_rule_is_refused() -> None:
    """Default deny, even to whoever has every role."""
    with pytest.raises(NotAllowedError, match="there is none"):
        Access().authorise("DropEverything", [("x-turnout-actor", "ann")])


@pytest.mark.parametrize("rpc", RPCS)
@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_token_decides_name_and_roles(rpc: str, role: str, tmp_path: Path) -> None:
    """Each RPC with each single role: let in exactly where the rule says so."""
    access = Access(read_identities(identities(tmp_path / "i.json", ann=[role])))

    if role in RULES[rpc].roles:
        assert access.authorise(rpc, bearer("ann")) == Identity("ann", frozenset({role}))
    else:
        with pytest.raises(NotAllowedError, match=f"{rpc} needs .*'ann' is {role}"):
            access.authorise(rpc, bearer("ann"))


@pytest.mark.parametrize("metadata", [[], bearer("eve"), [("authorization", "Bearer ")]])
def test_without_a_known_token_nothing_is_shown(
    metadata: list[tuple[str, str | bytes]], tmp_path: Path
) -> None:
    """Not even reads; and no name is taken on trust once tokens are configured."""
    access = Access(read_identities(identities(tmp_path / "i.json", ann=["author"])))

    with pytest.raises(UnknownActorError):
        access.authorise("ListModels", metadata)


@pytest.mark.parametrize("actor", ["", "x" * 65, "a\nb", " ann", "%00"])
def test_a_change_needs_a_printable_name(actor: str) -> None:
    """Without tokens a name is claimed, and it must be one."""
    with pytest.raises(UnknownActorError, match="1 to 64 printable"):
        Access().authorise("Deploy", [("x-turnout-actor", actor)])


def test_names_travel_percent_encoded() -> None:
    """Metadata is ASCII; people are not."""
    assert Access().authorise("Deploy", [("x-turnout-actor", "Zo%C3%AB")]).actor == "Zoë"


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}x", '{"ab": {"actor": "ann", "roles": []}}', '{"' + "a" * 64 + '": {}}',
     '{"' + "a" * 64 + '": {"actor": "ann", "roles": ["god"]}}'],
)  # fmt: skip
def test_a_wrong_identities_file_stops_the_registry(content: str, tmp_path: Path) -> None:
    """Half a list of who may do what is worse than none."""
    path = tmp_path / "identities.json"
    path.write_text(content)

    with pytest.raises(RegistryFaultError, match=r"identities\.json"):
        read_identities(path)
