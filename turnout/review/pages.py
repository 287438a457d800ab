"""A review as Markdown, and as one HTML file that needs no network and can be printed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from host.text import escape_controls
from turnout.review.section import ReviewSection, cell_text

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff; margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin: 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .4rem; border-bottom: 2px solid #d0d7de; }
p.head { color: #57606a; margin: .2rem 0 1rem; }
ul.head { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .6rem; }
ul.head li { border: 1px solid #d0d7de; border-radius: 6px; padding: .4rem .8rem; }
table { border-collapse: collapse; width: 100%; font-size: .87rem; }
th { text-align: left; font-weight: 600; border-bottom: 1px solid #8c959f; padding: .25rem .5rem; }
td { border-bottom: 1px solid #eaeef2; padding: .25rem .5rem; vertical-align: top;
  overflow-wrap: anywhere; }
td.page, td.OVERDUE { color: #a40e26; font-weight: 600; }
td.warning, td.large, td.old-views { color: #7d4e00; font-weight: 600; }
p.note, p.empty { color: #57606a; font-size: .87rem; margin: .3rem 0; }
figure { margin: .6rem 0; } figure svg { max-width: 100%; height: auto; }
@media print { body { margin: 0; max-width: none; font-size: 10pt; }
  h2 { break-after: avoid; } tr, figure { break-inside: avoid; }
  thead { display: table-header-group; } }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""The page may load nothing, and runs no script."""
MARKED = frozenset({"page", "warning", "large", "OVERDUE", "old views"})
"""Values whose cells have a style of their own."""


@dataclass(frozen=True, slots=True)
class ReviewPage:
    """What a page shows."""

    name: str
    """The name of the week."""
    days: str
    made: str
    summary: Sequence[str]
    sections: Sequence[ReviewSection]


def markdown_page(page: ReviewPage) -> str:
    """Return the review as Markdown with tables."""
    lines = [f"# Review of {_plain(page.name)}", "", f"{page.days}; made at {page.made}.", ""]
    lines += [f"- {_plain(line)}" for line in page.summary]
    for section in page.sections:
        lines += ["", f"## {section.title}", ""]
        if section.rows:
            lines.append(f"| {' | '.join(map(_heading, section.columns))} |")
            lines.append(f"|{'---|' * len(section.columns)}")
            for row in section.shown_rows:
                cells = (_plain(cell_text(row.get(name))) for name in section.columns)
                lines.append(f"| {' | '.join(cells)} |")
        else:
            lines.append(f"{_plain(_sentence(section.empty))}.")
        for note in section.shown_notes if section.rows else section.notes:
            lines += ["", f"{_plain(_sentence(note))}."]
    return "\n".join(lines) + "\n"


def html_page(page: ReviewPage, pictures: Mapping[str, str]) -> str:
    """Return the review as one HTML file.

    pictures  key of a section -> its picture as an <svg> element.
    """
    # The head, with what a reader wants first.
    title = f"Review of {_safe(page.name)}"
    summary = "".join(f"<li>{_safe(line)}</li>" for line in page.summary)
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>",
        f"<h1>{title}</h1>",
        f'<p class="head">{_safe(page.days)}; made at {_safe(page.made)}</p>',
        f'<ul class="head">{summary}</ul>',
    ]
    # A section has a table or says why it has none.
    for section in page.sections:
        parts.append(f'<section id="{section.key}"><h2>{_safe(section.title)}</h2>')
        parts.append(_table(section) if section.rows else _text(section.empty, "empty"))
        if picture := pictures.get(section.key):
            label = f"{section.title} over the last weeks"
            parts.append(f'<figure role="img" aria-label="{_safe(label)}">{picture}</figure>')
        parts += [_text(note, "note") for note in section.shown_notes]
        parts.append("</section>")
    return "\n".join([*parts, "</main></body></html>", ""])


def _table(section: ReviewSection) -> str:
    head = "".join(f'<th scope="col">{_safe(_heading(name))}</th>' for name in section.columns)
    rows = []
    for row in section.shown_rows:
        cells = []
        for name in section.columns:
            text = cell_text(row.get(name))
            style = text.replace(" ", "-")
            marked = f' class="{style}"' if text in MARKED else ""
            cells.append(f"<td{marked}>{_safe(text)}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _text(text: str, style: str) -> str:
    return f'<p class="{style}">{_safe(_sentence(text))}.</p>'


def _sentence(text: str) -> str:
    """Return a note as a sentence begins."""
    return text[:1].upper() + text[1:]


def _heading(column: str) -> str:
    return column.replace("_", " ")


def _safe(text: str) -> str:
    """Return *text* for HTML. It may come from people, models and files."""
    return escape(escape_controls(text))


def _plain(text: str) -> str:
    """Return *text* for a cell of Markdown, in which it can be no markup."""
    escaped = escape_controls(text)
    for letter in "\\`*_[]<>|#":
        escaped = escaped.replace(letter, f"\\{letter}")
    return escaped
