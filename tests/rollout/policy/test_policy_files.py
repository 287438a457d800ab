"""Policies from files: what they say, what they inherit, and refusals in words."""

from dataclasses import replace
from pathlib import Path

import pytest

from rollout.errors import PolicyError
from rollout.policy.freeze import active_freeze, parse_freeze_window
from rollout.policy.policy import POLICIES, STANDARD, CanaryStep
from rollout.policy.policy_files import read_policy_file, read_policy_folder

CAREFUL = """
name = "careful"
base = "standard"
failure_bar = 0.002
freeze = ["fri 16:00 - mon 07:00"]

[[canary]]
share_bp = 100
bake_s = 1800

[shadow]
pairs_min = 20000

[weights]
errors = 0.25
schema = 0.10

[models.churn]
failure_bar = 0.001
"""


def write_policy_file(folder: Path, text: str, name: str = "careful.toml") -> Path:
    """Write a policy file."""
    (folder / name).write_text(text)
    return folder / name


def test_a_file_makes_a_policy_and_an_edition_for_a_model(tmp_path: Path) -> None:
    """What it does not say is its base's; the edition differs by what its table says."""
    made = read_policy_file(write_policy_file(tmp_path, CAREFUL))
    careful, edition = made["careful"], made["careful@churn"]
    assert careful.canary == (CanaryStep(share_bp=100, bake_s=1800.0),)
    assert careful.shadow is not None
    assert STANDARD.shadow is not None
    assert careful.shadow == replace(STANDARD.shadow, pairs_min=20_000)
    assert (careful.watch_s, careful.failure_bar) == (STANDARD.watch_s, 0.002)
    assert dict(careful.weights)["errors"] == 0.25
    assert edition == replace(careful, name="careful@churn", failure_bar=0.001)
    assert len({one.digest for one in (careful, edition, STANDARD)}) == 3


def test_a_folder_adds_to_the_named_ones_and_no_name_comes_twice(tmp_path: Path) -> None:
    """The controller knows both kinds; a second file of the same name is refused at its start."""
    write_policy_file(tmp_path, CAREFUL)
    assert read_policy_folder(tmp_path).keys() == {*POLICIES, "careful", "careful@churn"}
    write_policy_file(tmp_path, CAREFUL, "other.toml")
    with pytest.raises(PolicyError, match=r"other.toml: there is a policy 'careful' already"):
        read_policy_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "Invalid value"),
        ('base = "standard"', "needs a name"),
        ('name = "a"\nbase = "bold"', "base 'bold' is not known"),
        ('name = "a"\nbase = "standard"\nfailurebar = 1', "'failurebar' is no field"),
        ('name = "a"\nbase = "standard"\nalpha = "low"', "alpha is a number"),
        ('name = "a"\nbase = "standard"\nalpha = 2', "alpha 2.0; between 0 and 1"),
        ('name = "a"\nbase = "standard"\nlooks_max = 1.5', "looks_max is a whole number"),
        ('name = "a"\nbase = "standard"\ncanary = 3', "canary is a list"),
        ('name = "a"\nbase = "standard"\n[[canary]]\nshare_bp = 5', "bake_s must be given"),
        ('name = "a"\nbase = "standard"\n[shadow]\npairs = 5', "its fields are sample_bp"),
        ('name = "a"\nbase = "standard"\n[weights]\nspeed = 0.5', "weights are of errors"),
        ('name = "a"\nbase = "standard"\n[weights]\nerrors = 0.5', "do not add up to 1"),
        ('name = "a"\nbase = "standard"\nfreeze = ["weekends"]', "neither like 'fri 16:00"),
        ('name = "a"\nbase = "standard"\nguards = "none"', "guards is a list"),
        ('name = "a"\nbase = "standard"\npromote_e = 1', "promote_e 1.0; it must exceed 1"),
    ],
)
def test_a_file_that_says_no_policy_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """With the file's name and what to write instead; nothing is guessed."""
    with pytest.raises(PolicyError, match=words):
        read_policy_file(write_policy_file(tmp_path, text))


def test_a_policy_may_go_without_a_shadow(tmp_path: Path) -> None:
    """`shadow = false` leaves the stage out."""
    made = read_policy_file(
        write_policy_file(tmp_path, 'name = "now"\nbase = "standard"\nshadow = false')
    )
    assert made["now"].shadow is None


FRIDAY_17 = 1_790_355_600
"""2026-09-25 17:00 UTC, a Friday."""


@pytest.mark.parametrize(
    ("text", "hours", "holds"),
    [
        ("fri 16:00 - mon 07:00", 0, True),
        ("fri 16:00 - mon 07:00", -2, False),
        ("FRI 16:00 - mon 07:00", 61, True),
        ("fri 16:00 - mon 07:00", 62, False),
        ("mon 07:00 - fri 16:00", 0, False),
        ("2026-09-24 - 2026-09-25", 6, True),
        ("2026-09-24 - 2026-09-25", 7, False),
    ],
)
def test_a_freeze_holds_when_it_says(text: str, hours: int, holds: bool) -> None:
    """Over a weekend's end too; a span's last day is whole."""
    assert parse_freeze_window(text).covers(FRIDAY_17 + 3_600 * hours) is holds
    assert active_freeze((text,), FRIDAY_17 + 3_600 * hours) == (text if holds else "")


@pytest.mark.parametrize(
    "text", ["", "fri - mon", "fri 25:00 - mon 07:00", "2026-09-25 - 2026-09-24"]
)
def test_a_freeze_that_says_nothing_is_refused(text: str) -> None:
    """With an example of each kind."""
    with pytest.raises(ValueError, match="neither like"):
        parse_freeze_window(text)
