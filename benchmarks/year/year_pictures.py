"""Draws the year of one model: what was planted, and each alarm (needs the extra `plots`)."""

from pathlib import Path
from typing import Any

from benchmarks.year.replay import YearResult
from benchmarks.year.year_calendar import PLANNED_VERSIONS
from benchmarks.year.year_verdicts import EventVerdict, YearVerdict

COLOURS = {True: "#2980b9", False: "#c0392b"}
"""Whether an event explains an alarm -> its colour."""
DAYS_A_MONTH = 28


def draw_model_year(model: str, verdict: YearVerdict, result: YearResult, file: Path) -> None:
    """Draw the events of a model as bars, with its alarms by kind as points below them."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    events = sorted(
        (item for item in verdict.events if model in item.event.models),
        key=lambda item: item.event.first_day,
    )
    alarms = [seen for seen in result.alarms if seen.alarm.model == model]
    kinds = sorted({seen.alarm.kind for seen in alarms})
    # Text stays text, and equal years give equal files.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "turnout"}):
        figure = Figure(figsize=(11, 1.5 + 0.32 * (len(events) + len(kinds))), layout="constrained")
        above, below = figure.subplots(
            2, 1, sharex=True, height_ratios=(max(1, len(events)), max(1, len(kinds)))
        )
        _draw_events(above, model, events)
        _draw_alarms(below, kinds, alarms, verdict)
        below.set_xlim(0, result.days)
        below.set_xlabel("day of the year")
        figure.savefig(file, metadata={"Date": None})


def _draw_events(axes: Any, model: str, events: list[EventVerdict]) -> None:  # noqa: ANN401
    axes.set_title(f"{model}: what was planted", loc="left", fontsize=10)
    for row, item in enumerate(events):
        event = item.event
        length = event.last_day + 1 - event.first_day
        colour = "#7f8c8d" if event.silent else "#27ae60"
        axes.barh(row, length, left=event.first_day, color=colour, alpha=0.6)
        if item.first is not None and item.first.alarm.model == model:
            axes.plot([item.first.day + 1], [row], marker="v", color="black")
    axes.set_yticks(range(len(events)), [item.event.name for item in events], fontsize=8)
    axes.invert_yaxis()
    _draw_versions(axes, model)


def _draw_alarms(axes: Any, kinds: list[str], alarms: list[Any], verdict: YearVerdict) -> None:  # noqa: ANN401
    axes.set_title("alarms by kind; red ones are false", loc="left", fontsize=10)
    false = set(map(id, verdict.false_alarms))
    # Alarms of one kind and day are one mark, or the file would be as long as the list of alarms.
    marks = sorted({(seen.day + 1, seen.alarm.kind, id(seen) not in false) for seen in alarms})
    for explained, colour in COLOURS.items():
        chosen = [(day, kinds.index(kind)) for day, kind, is_so in marks if is_so == explained]
        days, rows = zip(*chosen, strict=True) if chosen else ((), ())
        axes.plot(days, rows, linestyle="none", marker="|", markersize=10, color=colour)
    axes.set_yticks(range(len(kinds)), kinds, fontsize=8)
    axes.set_ylim(-0.6, len(kinds) - 0.4)


def _draw_versions(axes: Any, model: str) -> None:  # noqa: ANN401
    """Draw a line where another version became production."""
    for planned in PLANNED_VERSIONS[model]:
        axes.axvline(planned.production_day, color="#34495e", linewidth=0.8)
        axes.annotate(
            f" version {planned.label}",
            (planned.production_day, 0),
            xycoords=("data", "axes fraction"),
            fontsize=7,
        )
