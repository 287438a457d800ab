"""Policy files: their fields, the fields of their base, and refusals."""

from dataclasses import replace
from pathlib import Path

import pytest

from host.freeze_windows import active_freeze, parse_freeze_window
from rollout.errors import PolicyError
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
    """Write *text* as a policy file and return its path."""
    (folder / name).write_text(text)
    return folder / name


def test_policy_file_makes_a_policy_and_an_edition_for_a_model(tmp_path: Path) -> None:
    """Other fields are those of the base. The edition differs by its table."""
    policies = read_policy_file(write_policy_file(tmp_path, CAREFUL))
    careful, edition = policies["careful"], policies["careful@churn"]
    assert careful.canary == (CanaryStep(share_bp=100, bake_s=1800.0),)
    assert careful.shadow is not None
    assert STANDARD.shadow is not None
    assert careful.shadow == replace(STANDARD.shadow, pairs_min=20_000)
    assert (careful.watch_s, careful.failure_bar) == (STANDARD.watch_s, 0.002)
    assert dict(careful.weights)["errors"] == 0.25
    assert edition == replace(careful, name="careful@churn", failure_bar=0.001)
    assert len({policy.digest for policy in (careful, edition, STANDARD)}) == 3


def test_policy_folder_adds_its_policies_and_refuses_a_name_twice(tmp_path: Path) -> None:
    """A second file with the same name is refused when the controller starts."""
    write_policy_file(tmp_path, CAREFUL)
    assert read_policy_folder(tmp_path).keys() == {*POLICIES, "careful", "careful@churn"}
    write_policy_file(tmp_path, CAREFUL, "other.toml")
    with pytest.raises(PolicyError, match=r"other.toml: there is a policy 'careful' already"):
        read_policy_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
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
def test_policy_file_that_is_invalid_is_refused_with_the_reason(
    tmp_path: Path, text: str, message: str
) -> None:
    """The message has the file's name and what to write instead."""
    with pytest.raises(PolicyError, match=message):
        read_policy_file(write_policy_file(tmp_path, text))


def test_policy_file_can_leave_the_shadow_stage_out(tmp_path: Path) -> None:
    """It says `shadow = false`."""
    policies = read_policy_file(
        write_policy_file(tmp_path, 'name = "now"\nbase = "standard"\nshadow = false')
    )
    assert policies["now"].shadow is None


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
def test_freeze_window_covers_its_time(text: str, hours: int, holds: bool) -> None:
    """It can reach over a weekend. The last day of a span is included."""
    assert parse_freeze_window(text).covers(FRIDAY_17 + 3_600 * hours) is holds
    assert active_freeze((text,), FRIDAY_17 + 3_600 * hours) == (text if holds else "")


@pytest.mark.parametrize(
    "text", ["", "fri - mon", "fri 25:00 - mon 07:00", "2026-09-25 - 2026-09-24"]
)
def test_freeze_window_that_is_invalid_is_refused(text: str) -> None:
    """The message has an example of each kind."""
    with pytest.raises(ValueError, match="neither like"):
        parse_freeze_window(text)
