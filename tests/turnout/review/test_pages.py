"""The page as HTML and Markdown: whole, safe, and without the network."""

import re
from html.parser import HTMLParser

import pytest

from tests.turnout.review.review_inputs import busy_inputs
from turnout.review.pages import ReviewPage, html_page, markdown_page
from turnout.review.plots import draw_lines
from turnout.review.section import FigureLine
from turnout.review.sections import review_sections, summary_lines

VOID = {"meta", "br", "img", "link"}
LINE = FigureLine("churn 7 psi <f0>", ((20_780, 0.1, 0.05, 0.2), (20_781, 0.3, None, None)))


def page() -> ReviewPage:
    """Return the page of a busy week."""
    sections = review_sections(busy_inputs())
    return ReviewPage(
        "2026-W48", "2026-11-23 to 2026-11-29", "now", summary_lines(sections), sections
    )


class OpenTags(HTMLParser):
    """Notes tags that are not closed, and what the page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag, and the addresses in its attributes."""
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            outside = name in ("src", "href", "xlink:href", "data", "action", "srcset")
            if outside and not (value or "").startswith("#"):
                self.fetched.append(f"{tag} {name}={value}")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag without content, which svg has."""
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        """Close the tag that was opened last."""
        assert self.open.pop() == tag


def test_page_is_one_file_without_the_network_and_without_scripts() -> None:
    """Every tag is closed, and nothing is fetched; the picture is part of the page."""
    pytest.importorskip("matplotlib", reason="the plots extra is not installed")
    html = html_page(page(), {"drift": draw_lines([LINE])})
    read = OpenTags()
    read.feed(html)
    assert (read.open, read.fetched) == ([], [])
    assert "svg" in read.tags
    assert "script" not in read.tags
    assert not re.search(r"url\((?!#)|@import", html)
    assert "default-src 'none'" in html
    assert "@media print" in html
    for section in page().sections:
        assert f'id="{section.key}"' in html
    # Equal figures give an equal page.
    assert html == html_page(page(), {"drift": draw_lines([LINE])})


def test_texts_of_people_are_no_markup() -> None:
    """A title with a tag, and a name with a bar, are shown as they are."""
    html = html_page(page(), {})
    assert "usage is missing &lt;b&gt;" in html
    assert "<b>" not in html
    text = markdown_page(page())
    assert "usage is missing \\<b\\>" in text


def test_markdown_has_a_table_or_a_reason_for_each_section() -> None:
    """Each table has as many cells in each row as columns."""
    text = markdown_page(page())
    for section in page().sections:
        assert f"## {section.title}\n" in text
        if not section.rows:
            assert section.title
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        bars = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(bars) == 1
    assert "Not enough data: no figure of this kind in this week" in text


def test_no_line_is_no_picture() -> None:
    """Without figures of two days there is nothing to draw."""
    assert draw_lines([]) == ""
