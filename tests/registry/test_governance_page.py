"""Tests that docs/governance.md says what the code does."""

import re
from pathlib import Path

import pytest

from access.identities import ROLES
from access.rules import RULES
from registry.rules.gates import DeployCommand
from registry.rules.lifecycle import ALLOWED_STEPS
from registry.types import STATUS_NAMES, Deployment

PAGE = (Path(__file__).parents[2] / "docs" / "governance.md").read_text()


def table_rows(heading: str) -> list[list[str]]:
    """The cells of the table on the page with this heading of the first column."""
    table = PAGE[PAGE.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


def test_governance_page_names_every_role() -> None:
    """A new role needs a line on the page."""
    assert {row[0] for row in table_rows("role")} == ROLES


def test_governance_page_shows_every_step_of_a_status() -> None:
    """The page has the same steps as lifecycle.ALLOWED_STEPS."""
    shown = {(before, to) for cells, to, _ in table_rows("from") for before in cells.split(", ")}

    assert shown == {(STATUS_NAMES[before], STATUS_NAMES[to]) for before, to in ALLOWED_STEPS}


@pytest.mark.parametrize("role", ["approver", "operator", "controller"])
def test_governance_page_says_which_roles_deploy_and_approve(role: str) -> None:
    """Approvers approve and do not deploy. Operators and controllers deploy and do not approve."""
    text = next(cells[1] for cells in table_rows("role") if cells[0] == role)

    assert ("deploy" in text) == (role in RULES["/turnout.v1.Registry/Deploy"].roles)
    assert ("approve" in text) == (role in RULES["/turnout.v1.Registry/Approve"].roles)


def test_governance_page_searches_for_the_action_of_break_glass() -> None:
    """The page's command searches for the text that the history has."""
    command = DeployCommand(
        deployment=Deployment("m"),
        lease_token=0,
        policy_digest="",
        rollback=False,
        break_glass=True,
    )

    assert command.action in PAGE
    assert re.search(r'grep "BREAK GLASS"', PAGE)
