"""docs/reliability.md and the table of surroundings have a row for each case, with its tests."""

import re

from tests.house.sources import REPOSITORY, fail_on_breaches

PAGE = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| ([CDMPT]\d+) \| (.+) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
SURROUNDINGS = REPOSITORY / "docs" / "decisions" / "0087-faults-of-the-surroundings.md"
FAULT = re.compile(r"^\| (F\d+) \| (.+) \|$", re.MULTILINE)
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


def test_every_fault_of_the_surroundings_names_a_test() -> None:
    """F1 to F23, once each, in order; no gap is without a test, either."""
    page = SURROUNDINGS.read_text(encoding="utf-8")
    assert [fault for fault, _ in FAULT.findall(page)] == [f"F{n}" for n in range(1, 24)]
    rows = [line for line in page.splitlines() if re.match(r"\| (?!---|id|gap)", line)]
    fail_on_breaches([f"{row[:60]} names no test" for row in rows if not TEST.search(row)])


def test_pages_name_tests_that_exist() -> None:
    """A test that was renamed or removed leaves its row without proof."""
    pages = {path: path.read_text("utf-8") for path in (REPOSITORY / "docs").rglob("*.md")}
    named = sorted({(page, *test) for page, text in pages.items() for test in TEST.findall(text)})
    assert len(named) > 100
    fail_on_breaches(
        [
            f"docs/{page.name} names {path}::{test}, which does not exist"
            for page, path, test in named
            if f"def {test}(" not in _text(path)
        ]
    )
    fail_on_breaches([f"{path} is gone" for path in MEASURED.findall(PAGE) if not _text(path)])


def _text(path: str) -> str:
    file = REPOSITORY / path
    return file.read_text(encoding="utf-8") if file.exists() else ""
