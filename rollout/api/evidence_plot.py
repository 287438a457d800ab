"""The race as a picture: how near each metric came to its threshold, second by second. SVG."""

import math
from html import escape

from protos import rollout_pb2

WIDTH, HEIGHT = 960, 420
LEFT, RIGHT, TOP, BOTTOM = 56, 150, 44, 40
COLOURS = ("#c0392b", "#8e44ad", "#d35400", "#2980b9", "#16a085", "#27ae60", "#7f8c8d", "#b7950b")
FLOOR = -0.1
"""Shares of a threshold below it are drawn on it."""
CEILING = 1.25


def draw_evidence_plot(explanation: rollout_pb2.RolloutExplanation) -> str:
    """Return an SVG: time across; up, ln e as a part of what rolls back, one line a metric."""
    course, rows = list(explanation.evidence_history), list(explanation.status.evidence)
    status = explanation.status
    title = f"{status.model} {status.version} beside {status.baseline}"
    verdict = rollout_pb2.Verdict.Name(explanation.status.verdict)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 18, f"{title}: {verdict}", size=15),
        _text(LEFT, 34, explanation.status.reason[:150], colour="#555"),
    ]
    if not course:
        parts.append(
            _text(LEFT, HEIGHT // 2, "no second of it was judged since the controller began")
        )
        return "\n".join([*parts, "</svg>"]) + "\n"
    first, last = course[0].second, max(course[-1].second, course[0].second + 1)
    parts += _axes(last - first)
    parts += _stage_marks(course, first, last)
    for index, row in enumerate(rows):
        colour = COLOURS[index % len(COLOURS)]
        parts.append(_metric_line(course, index, row.log_threshold, colour, first, last))
        reached = course[-1].log_e[index] / row.log_threshold if row.log_threshold else 0.0
        label = f"{row.metric} {100 * max(reached, 0.0):.0f} %"
        parts.append(_text(WIDTH - RIGHT + 12, TOP + 16 * (index + 1), label, colour=colour))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _metric_line(
    history: list[rollout_pb2.EvidencePoint],
    index: int,
    log_threshold: float,
    colour: str,
    first: int,
    last: int,
) -> str:
    points = []
    for point in history:
        part = point.log_e[index] / log_threshold if log_threshold else 0.0
        points.append(f"{_x(point.second, first, last):.1f},{_y(part):.1f}")
    return (
        f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{" ".join(points)}"/>'
    )


def _axes(seconds: int) -> list[str]:
    right = WIDTH - RIGHT
    parts = []
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        stroke = "#c0392b" if part == 1.0 else "#ddd"
        y = f"{_y(part):.1f}"
        parts.append(f'<line x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}" stroke="{stroke}"/>')
        parts.append(_text(8, _y(part) + 4, f"{part:.0%}", colour="#555"))
    parts.append(_text(right - 70, _y(1.0) - 5, "rolls back", colour="#c0392b"))
    parts.append(_text(LEFT, HEIGHT - 8, f"{seconds} s, ln e as a part of its threshold", "#555"))
    return parts


def _stage_marks(points: list[rollout_pb2.EvidencePoint], first: int, last: int) -> list[str]:
    parts, shown = [], None
    for point in points:
        if (point.stage, point.share_bp) == shown:
            continue
        shown = (point.stage, point.share_bp)
        x = f"{_x(point.second, first, last):.1f}"
        bottom = HEIGHT - BOTTOM
        parts.append(
            f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{bottom}" stroke="#999" stroke-dasharray="3"/>'
        )
        name = rollout_pb2.Stage.Name(point.stage).removesuffix("_STAGE").lower()
        parts.append(_text(float(x) + 3, bottom + 14, f"{name} {point.share_bp / 100:g} %", "#555"))
    return parts


def _text(x: float, y: float, text: str, colour: str = "#222", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-size="{size}">{escape(text)}</text>'


def _x(second: int, first: int, last: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (second - first) / (last - first)


def _y(part: float) -> float:
    shown = min(max(part if math.isfinite(part) else CEILING, FLOOR), CEILING)
    return TOP + (HEIGHT - TOP - BOTTOM) * (CEILING - shown) / (CEILING - FLOOR)
