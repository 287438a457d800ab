"""Draws figures over time as inline SVG (docs/decisions/0004-pictures.md)."""

import datetime as dt
import io
import re
from collections.abc import Sequence

from turnout.review.section import FigureLine

EPOCH = dt.date(1970, 1, 1)
METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
"""What says who drew it, with addresses that nobody needs to fetch."""


def draw_lines(lines: Sequence[FigureLine]) -> str:
    """Return an <svg> element with a small plot for each line; empty for no line.

    Equal lines give equal text. Raises ImportError when matplotlib is not installed.
    """
    if not lines:
        return ""
    import matplotlib as mpl
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    # Three plots in a row, each with its own scale.
    columns = min(3, len(lines))
    rows = -(-len(lines) // columns)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "turnout"}):
        figure = Figure(figsize=(4.0 * columns, 2.1 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, line in zip(grid, lines, strict=False):
            days = [EPOCH + dt.timedelta(days=point[0]) for point in line.points]
            values = [point[1] for point in line.points]
            lows = [value if low is None else low for _, value, low, _ in line.points]
            highs = [value if high is None else high for _, value, _, high in line.points]
            axes.fill_between(days, lows, highs, color="#0969da", alpha=0.18, linewidth=0)
            axes.plot(days, values, color="#0969da", linewidth=1.5, marker=".")
            axes.set_title(line.name[:60], fontsize=8, loc="left", parse_math=False)
            locator = AutoDateLocator(maxticks=5)  # type: ignore[no-untyped-call]
            axes.xaxis.set_major_locator(locator)
            formatter = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
            axes.xaxis.set_major_formatter(formatter)
            axes.tick_params(labelsize=7)
        # Places without a line stay blank.
        for axes in grid[len(lines) :]:
            axes.set_axis_off()
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    # The page has a head of its own.
    text = drawn.getvalue()
    return METADATA.sub("", text[text.index("<svg") :])
