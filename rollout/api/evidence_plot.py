"""Draws how near each metric came to its threshold, second by second.

matplotlib draws the picture. It comes with the extra `plots` and is imported when a picture is
drawn, never by a server (docs/decisions/0004-pictures.md).
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from protos import rollout_pb2

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_INCHES = (9.6, 4.2)
DPI = 200
"""Pixels an inch of a PNG: sharp on paper and on dense screens."""
REASON_CHARS_MAX = 150
FLOOR, CEILING = -0.1, 1.25
"""Evidence beyond these parts of a threshold is drawn on the edge."""
COLOURS = ("#c0392b", "#8e44ad", "#d35400", "#2980b9", "#16a085", "#27ae60", "#7f8c8d", "#b7950b")


def draw_evidence_plot(explanation: rollout_pb2.RolloutExplanation, file: Path) -> None:
    """Draw one line for each metric: seconds across, ln e as a part of its threshold upwards.

    file  its ending chooses the format, .svg or .png. Equal explanations give equal files.

    Raises ImportError without matplotlib, and OSError if the file cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    status, history = explanation.status, list(explanation.evidence_history)
    verdict = rollout_pb2.Verdict.Name(status.verdict)
    # Text stays text, so that an SVG can be searched. The salt makes equal pictures equal files.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "turnout"}):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.subplots()
        title = f"{status.model} {status.version} beside {status.baseline}: {verdict}"
        # A reason may have dollar signs, which are not meant as mathematics.
        axes.set_title(
            f"{title}\n{status.reason[:REASON_CHARS_MAX]}",
            loc="left",
            fontsize=10,
            parse_math=False,
        )
        if history:
            _draw_history(axes, explanation)
        else:
            axes.set_axis_off()
            axes.text(0.0, 0.5, "no second of the rollout was judged since the controller began")
        metadata = {"Date": None} if file.suffix.lower() == ".svg" else None
        figure.savefig(file, dpi=DPI, metadata=metadata)


def _draw_history(axes: "Axes", explanation: rollout_pb2.RolloutExplanation) -> None:
    history = list(explanation.evidence_history)
    first, last = history[0].second, max(history[-1].second, history[0].second + 1)
    seconds = [point.second - first for point in history]
    # One line for each metric. Its name and how far it came stand in the legend.
    for index, row in enumerate(explanation.status.evidence):
        parts = [_part_of_threshold(point.log_e[index], row.log_threshold) for point in history]
        label = f"{row.metric} {100 * max(parts[-1], 0.0):.0f} %"
        shown = [min(max(part, FLOOR), CEILING) for part in parts]
        colour = COLOURS[index % len(COLOURS)]
        axes.plot(
            seconds, shown, label=label, color=colour, linewidth=1.2, gid=f"metric-{row.metric}"
        )
    # The threshold, and where each stage began.
    axes.axhline(1.0, color="#c0392b", linewidth=0.8)
    axes.text(last - first, 1.01, "rolls back", color="#c0392b", fontsize=8, ha="right")
    for second, name in _stage_starts(history):
        axes.axvline(second - first, color="#999999", linewidth=0.8, linestyle=":")
        axes.text(second - first, FLOOR + 0.02, f" {name}", color="#555555", fontsize=8)
    axes.set_xlim(0, last - first)
    axes.set_ylim(FLOOR, CEILING)
    axes.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0%", "25%", "50%", "75%", "100%"])
    axes.set_xlabel("seconds")
    axes.set_ylabel("ln e as a part of its threshold")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)


def _part_of_threshold(log_e: float, log_threshold: float) -> float:
    """Return ln e as a part of the threshold; a number that is not finite is drawn at the top."""
    part = log_e / log_threshold if log_threshold else 0.0
    return part if math.isfinite(part) else CEILING


def _stage_starts(history: list[rollout_pb2.EvidencePoint]) -> Iterator[tuple[int, str]]:
    """Yield the second and the name of each stage or share."""
    current = None
    for point in history:
        if (point.stage, point.share_bp) != current:
            current = (point.stage, point.share_bp)
            name = rollout_pb2.Stage.Name(point.stage).removesuffix("_STAGE").lower()
            yield point.second, f"{name} {point.share_bp / 100:g} %"
