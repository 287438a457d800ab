"""docs/governance.md says what the code does: its tables are held against the tables here."""

import re
from pathlib import Path

import pytest

from registry.api.access import ROLES, RULES
from registry.rules.lifecycle import ALLOWED_STEPS, STATUS_NAMES
from registry.storage.deployments import DeployCommand
from registry.types import Deployment

PAGE = (Path(__file__).parents[2] / "docs" / "governance.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the table whose first column is headed so."""
    table = PAGE[PAGE.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


def test_the_page_names_every_role_and_no_other() -> None:
    """A new role needs a line for the people it is given to."""
    assert {row[0] for row in rows("role")} == ROLES


def test_the_page_shows_every_step_a_version_may_take() -> None:
    """Status by status, as in lifecycle.ALLOWED_STEPS."""
    shown = {(before, to) for cells, to, _ in rows("from") for before in cells.split(", ")}

    assert shown == {(STATUS_NAMES[before], STATUS_NAMES[to]) for before, to in ALLOWED_STEPS}


@pytest.mark.parametrize("role", ["approver", "operator", "controller"])
def test_what_the_page_says_of_deploying_holds(role: str) -> None:
    """Approvers approve and do not deploy; operators and controllers deploy and do not approve."""
    said = next(cells[1] for cells in rows("role") if cells[0] == role)

    assert ("deploy" in said) == (role in RULES["Deploy"].roles)
    assert ("approve" in said) == (role in RULES["Approve"].roles)


def test_the_page_finds_the_glass_by_the_words_of_the_history() -> None:
    """The snippet greps for them."""
    wish = DeployCommand(
        deployment=Deployment("m"),
        lease_token=0,
        policy_digest="",
        rollback=False,
        break_glass=True,
    )

    assert wish.action in PAGE
    assert re.search(r'grep "BREAK GLASS"', PAGE)
