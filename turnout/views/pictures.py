"""Pictures of rollouts and reports as SVG or PNG; they need the extra `plots`."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from protos import rollout_pb2
from turnout.errors import OperatorError

PICTURE_ENDINGS = (".svg", ".png")
PLOTS_MISSING = "a picture needs the extra plots: pip install 'turnout[plots]'"


def check_drawing(file: Path) -> None:
    """Raise OperatorError for another ending, and when matplotlib is not installed."""
    _check_ending(file)
    if find_spec("matplotlib") is None:
        raise OperatorError(PLOTS_MISSING)


def _check_ending(file: Path) -> None:
    if file.suffix.lower() not in PICTURE_ENDINGS:
        raise OperatorError(f"a picture is .svg or .png, and {file.name} ends in {file.suffix!r}")


def write_evidence_plot(explanation: rollout_pb2.RolloutExplanation, file: Path) -> None:
    """Draw the evidence of a rollout to *file*, as SVG or PNG by its ending.

    Raises OperatorError for another ending, and when matplotlib is not installed.
    """
    from rollout.api.evidence_plot import draw_evidence_plot

    _check_ending(file)
    try:
        draw_evidence_plot(explanation, file)
    except ImportError as error:
        raise OperatorError(PLOTS_MISSING) from error


def write_report_picture(report: Mapping[str, Any], file: Path) -> None:
    """Draw the report of `turnout report` to *file*: stages of versions, and incidents in time.

    Raises OperatorError for another ending, and when matplotlib is not installed.
    """
    _check_ending(file)
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OperatorError(PLOTS_MISSING) from error
    # Text stays text, and equal reports give equal files.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "turnout"}):
        figure = Figure(figsize=(10, 6), layout="constrained")
        stages, incidents = figure.subplots(2, 1)
        _draw_stages(stages, report["time_to_production"])
        _draw_incidents(incidents, report)
        metadata = {"Date": None} if file.suffix.lower() == ".svg" else None
        figure.savefig(file, dpi=120, metadata=metadata)


def _draw_stages(axes: Any, made: Mapping[str, Any]) -> None:  # noqa: ANN401  matplotlib's Axes
    """Draw a bar a version, cut into its stages, in hours."""
    axes.set_title("From the first training to production, hours", loc="left", fontsize=10)
    versions = made["versions"][-20:]
    names = [f"{item['model']} {item['version']}" for item in versions]
    left = [0.0] * len(versions)
    for stage in (item["name"] for item in made["stages"]):
        hours = [item["stages"].get(stage, 0.0) / 3_600 for item in versions]
        axes.barh(names, hours, left=left, label=stage)
        left = [start + width for start, width in zip(left, hours, strict=True)]
    if versions:
        axes.legend(fontsize=8)
    else:
        axes.text(0.0, 0.5, "no version became production in this time")


def _draw_incidents(axes: Any, report: Mapping[str, Any]) -> None:  # noqa: ANN401
    """Draw a line an incident, from its opening to its end or to now."""
    axes.set_title("Incidents, days before now", loc="left", fontsize=10)
    now_ms = report["until_unix_ms"]
    colours = {"page": "#c0392b", "warning": "#d35400", "review": "#7f8c8d"}
    for row, item in enumerate(report["incidents"]["incidents"]):
        days = [
            (ms - now_ms) / 86_400_000
            for ms in (item["opened_unix_ms"], item["closed_unix_ms"] or now_ms)
        ]
        axes.plot(days, [row, row], marker="|", color=colours.get(item["severity"], "#2980b9"))
        named = f"{item['model']}: {item['title']}"[:60]
        axes.annotate(named, (days[0], row), fontsize=7, parse_math=False)
    axes.set_yticks([])
