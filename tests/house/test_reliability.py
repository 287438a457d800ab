"""docs/reliability.md has a row for each case, and the tests that it names exist."""

import re

from tests.house.sources import REPOSITORY, fail_on_breaches

PAGE = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| ([CDMPT]\d+) \| (.+) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
CASES = {"C": 26, "D": 12, "M": 16, "P": 11, "T": 5}
MEASURED = re.compile(r"`(benchmarks/[\w/]+\.py)`")


def test_reliability_page_has_every_case_in_order() -> None:
    """C1 to C26, D1 to D12, M1 to M16, P1 to P11, T1 to T5, once each, in order."""
    expected = [f"{kind}{number}" for kind, last in CASES.items() for number in range(1, last + 1)]
    assert [case for case, _ in ROW.findall(PAGE)] == expected


def test_reliability_case_names_a_test_or_says_why_not() -> None:
    """A row without a test names what measures it, or says: not yet."""
    fail_on_breaches(
        [
            f"{case} names no test, and says neither *not yet* nor what measures it"
            for case, row in ROW.findall(PAGE)
            if not TEST.search(row) and "*not yet*" not in row and not MEASURED.search(row)
        ]
    )


def test_reliability_page_names_tests_that_exist() -> None:
    """A test that was renamed or removed leaves its row without proof."""
    named = sorted(set(TEST.findall(PAGE)))
    assert len(named) > 50
    fail_on_breaches(
        [
            f"docs/reliability.md names {path}::{test}, which does not exist"
            for path, test in named
            if f"def {test}(" not in _text(path)
        ]
    )
    fail_on_breaches([f"{path} is gone" for path in MEASURED.findall(PAGE) if not _text(path)])


def _text(path: str) -> str:
    file = REPOSITORY / path
    return file.read_text(encoding="utf-8") if file.exists() else ""
