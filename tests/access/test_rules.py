"""Tests of the rules: each RPC has one, and who may call what."""

from pathlib import Path

import pytest

from access.identities import ROLES, ForbiddenError, IdentitiesFiles, UnidentifiedError
from access.rules import PAGES, RULES, Access
from registry.api.rpc import SERVICE
from registry.api.service import RegistryService
from tests.access.identity_files import bearer_metadata, write_identities
from tests.access.rights import (
    CONTROL_SERVICES,
    FEATURES_SERVICE,
    all_methods,
    may_call,
    methods_of,
    without_rule,
)


def access_of(folder: Path, **roles: list[str]) -> Access:
    """Return the access control of an identities file with these people."""
    return Access(IdentitiesFiles([write_identities(folder / "i.json", **roles)]))


def test_rules_have_every_rpc_of_every_service_and_no_other() -> None:
    """The list of RPCs comes from the services' descriptors."""
    assert without_rule(RULES) == set()
    assert set(RULES) == set(all_methods())


@pytest.mark.parametrize("method", sorted(RULES))
def test_rule_that_is_removed_is_missed_and_its_rpc_is_refused(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Default deny: without its rule, a caller with every role is refused."""
    monkeypatch.delitem(RULES, method)

    assert without_rule(RULES) == {method}
    with pytest.raises(ForbiddenError, match="there is none"):
        Access().authorise(method, [("x-turnout-actor", "ann")])


def test_registry_service_has_a_method_for_every_rpc() -> None:
    """rpc.py calls it by name."""
    assert [rpc.name for rpc in SERVICE.methods if not hasattr(RegistryService, rpc.name)] == []


@pytest.mark.parametrize("role", sorted(ROLES))
def test_access_takes_name_and_roles_from_the_token(role: str, tmp_path: Path) -> None:
    """Each RPC of control and of pushed rows is tried with each single role."""
    access = access_of(tmp_path, ann=[role])

    for method in methods_of(*CONTROL_SERVICES, FEATURES_SERVICE):
        if may_call(method, role):
            identity = access.authorise(method, bearer_metadata("ann"))
            assert (identity.actor, identity.roles) == ("ann", {role}), method
            continue
        with pytest.raises(ForbiddenError, match=f"needs .*'ann' is {role}"):
            access.authorise(method, bearer_metadata("ann"))


def test_access_refuses_every_rpc_without_a_known_token(tmp_path: Path) -> None:
    """Reads are refused too, and names alone are not believed. Health is open."""
    access = access_of(tmp_path, ann=["author"])

    for method, rule in RULES.items():
        for metadata in ([], bearer_metadata("eve"), [("x-turnout-actor", "ann")]):
            if rule.open:
                assert access.authorise(method, metadata).roles == frozenset()
                continue
            with pytest.raises(UnidentifiedError):
                access.authorise(method, metadata)
    assert {method.split("/")[1] for method, rule in RULES.items() if rule.open} == {
        "grpc.health.v1.Health",
        "inference.GRPCInferenceService",
    }


def test_access_without_identities_needs_a_name_for_changes_only() -> None:
    """Gateways and readers need none."""
    for method in methods_of(*CONTROL_SERVICES):
        if RULES[method].changes:
            with pytest.raises(UnidentifiedError, match="1 to 64 printable"):
                Access().authorise(method, [])
        else:
            Access().authorise(method, [])
    assert Access().authorise("/turnout.v1.Registry/Deploy", [("x-turnout-actor", "ann")])


def test_pages_need_the_observers_token_except_health() -> None:
    """A new page needs a rule; gateway/supervision answers no other path."""
    assert {page for page, rule in PAGES.items() if rule.open} == {"/healthz", "/readyz"}
    assert {page for page, rule in PAGES.items() if rule.roles == {"observer"}} == {
        "/metrics",
        "/workers",
        "/statistics",
    }
