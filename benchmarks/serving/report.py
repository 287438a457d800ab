"""Turns rounds into tables, and checks promises and targets against them. Pure."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.serving.workloads import (
    CANNED,
    GATEWAY,
    GROWTH,
    HANDWRITTEN,
    KEYED,
    KEYED_SINGLE_CALLER,
    NOISE_SHARE,
    SERVERS,
    TARGETS,
    TRITON,
    WORKLOADS,
    Target,
    Workload,
)

Round = dict[str, Any]

THROUGHPUT_RATIO_MIN = 1.3
"""Promised: calls/s at saturation by key, over those of the server written by hand."""
SINGLE_CALLER_RATIO_MAX = 1.0
"""Promised: p50 of a single caller by key is no worse. Within NOISE_SHARE counts as no worse."""
FIGURES = (
    ("calls_per_s", 0),
    ("rows_per_s", 0),
    ("p50_ms", 3),
    ("p99_ms", 2),
    ("server_us_per_call", 1),
)
"""Key of a round, and digits in the table."""


def figure_values(rounds: Sequence[Round], side: str, workload: str, figure: str) -> list[float]:
    """Return one figure of every round of one server and workload, in their order."""
    return [float(r[figure]) for r in rounds if r["side"] == side and r["workload"] == workload]


def gateway_ratios(rounds: Sequence[Round], workload: str, figure: str) -> list[float]:
    """Return the gateway's figure over the handwritten server's, for each round.

    Within a round both ran at nearly the same time, at the same pace of the machine. The list is
    empty for a workload that the handwritten server cannot answer.
    """
    gateway, handwritten = (figure_values(rounds, side, workload, figure) for side in SERVERS)
    if not handwritten:
        return []
    return [a / b for a, b in zip(gateway, handwritten, strict=True)]


def promise_results(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """Return each promise with its measured ratio; promises of workloads not run are left out."""
    promises = (
        (KEYED, "calls_per_s", THROUGHPUT_RATIO_MIN, True),
        (KEYED_SINGLE_CALLER, "p50_ms", SINGLE_CALLER_RATIO_MAX, False),
    )
    results = []
    for workload, figure, bound, at_least in promises:
        measured = gateway_ratios(rounds, workload, figure)
        if not measured:
            continue
        middle = median(measured)
        held = middle >= bound if at_least else middle <= bound * (1 + NOISE_SHARE)
        results.append(
            {
                "promise": f"{workload}: {figure} {'>=' if at_least else '<='} {bound:g} x by hand",
                "ratio": round(middle, 3),
                "ratio_min": round(min(measured), 3),
                "ratio_max": round(max(measured), 3),
                "held": held,
            }
        )
    failed = int(sum(r["failed"] for r in rounds))
    results.append({"promise": "no call fails", "failed": failed, "held": failed == 0})
    return results


def targets(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """Return each target with its median and spread; targets of workloads not run are left out."""
    results = []
    for target in TARGETS:
        measured = _figures(rounds, target)
        if measured:
            middle = median(measured)
            held = middle >= target.bound if target.at_least else middle <= target.bound
            results.append(
                {
                    "target": _target_text(target),
                    "measured": round(middle, 4),
                    "lowest": round(min(measured), 4),
                    "highest": round(max(measured), 4),
                    "held": held,
                    "short_pct": 0.0 if held else round(short_pct(middle, target.bound), 1),
                }
            )
    return results


def short_pct(measured: float, bound: float) -> float:
    """Return by how many percent of *bound* a figure misses it; of a bound of 0, in points."""
    return abs(measured - bound) / (bound or 1.0) * 100


def _target_text(target: Target) -> str:
    sign, of = ">=" if target.at_least else "<=", ""
    if target.over_handwritten:
        of = " x by hand"
    elif target.against:
        of = f" x {target.against}"
    elif target.against_best_of:
        of = " x the best with fewer open"
    return f"{target.workload}: {target.figure} {sign} {target.bound:,g}{of}"


def _figures(rounds: Sequence[Round], target: Target) -> list[float]:
    """Return the figure that *target* bounds, for each round; empty if it was not measured."""
    if target.over_handwritten:
        return gateway_ratios(rounds, target.workload, target.figure)
    figures = figure_values(rounds, GATEWAY, target.workload, target.figure)
    others = (target.against,) if target.against else target.against_best_of
    if not others:
        return figures
    references = [figure_values(rounds, GATEWAY, name, target.figure) for name in others]
    # A round of a run with --only may lack some of the workloads.
    best = [max(values) for values in zip(*filter(None, references), strict=True)]
    return [a / b for a, b in zip(figures, best, strict=False)]


def report_table(report: dict[str, Any]) -> str:
    """Return the report as Markdown: medians, and (lowest-highest) of the rounds."""
    # What was measured, on what.
    rounds = report["rounds"]
    machine = report["machine"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores (server on one; generator and store on the "
        f"other), Python {machine['python']}, grpcio {machine['packages']['grpcio']}, commit "
        f"{report['commit']}, {report['measured_at']}, load at start "
        f"{machine['load_average_at_start'][0]:g}; median (lowest-highest) of the rounds.",
        "",
        "| calls | server | calls/s | rows/s | p50 ms | p99 ms | server CPU us/call |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += _workload_rows(rounds)
    if ratios := _ratio_lines(rounds):
        lines += ["", *ratios]
    if growth := growth_rows(rounds):
        lines += ["", "| what grows | calls/s | p50 ms | p99 ms | CPU us/call | CPU us/row |"]
        lines += ["|---|---|---|---|---|---|", *growth]
    lines += _generator_lines(rounds)
    # Targets and promises.
    if report["targets"]:
        lines += ["", f"| target ({report['ingress']} ingress) | measured | |", "|---|---|---|"]
    for target in report["targets"]:
        measured = f"{target['measured']:,g} ({target['lowest']:,g}-{target['highest']:,g})"
        lines.append(f"| {target['target']} | {measured} | {_verdict(target)} |")
    missed = sum(not target["held"] for target in report["targets"])
    lines += ["", f"{missed} of {len(report['targets'])} targets fall short."]
    lines += [
        f"{'held' if v['held'] else 'NOT HELD'}: {_result_text(v)}" for v in report["verdicts"]
    ]
    return "\n".join(lines)


def _verdict(target: dict[str, Any]) -> str:
    return "met" if target["held"] else f"falls short by {target['short_pct']:,g} %"


def _workload_rows(rounds: Sequence[Round]) -> list[str]:
    """Return a row of the table for each workload and server that was timed."""
    lines: list[str] = []
    for workload in WORKLOADS:
        shown = f"{workload.name} ({workload.connections:,} x {workload.streams}"
        shown += f" x {workload.messages})" if workload.messages else ")"
        timed = {side: _workload_figures(rounds, side, workload) for side in SERVERS}
        timed[TRITON] = {figure: [value] for figure, value in workload.triton.items()}
        if timed[GATEWAY]:
            lines += [
                f"| {shown} | {side} | {' | '.join(_cells(workload, figures))} |"
                for side, figures in timed.items()
                if figures
            ]
    return lines


def _workload_figures(
    rounds: Sequence[Round], side: str, workload: Workload
) -> dict[str, list[float]]:
    """Return figure -> its values in the rounds of one server and workload."""
    figures = {figure: figure_values(rounds, side, workload.name, figure) for figure, _ in FIGURES}
    return {figure: values for figure, values in figures.items() if values}


def _cells(workload: Workload, figures: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the cells of a row; rows/s are shown where they are not calls/s."""
    return [
        spread_text(figures[figure], digits)
        if figure in figures and (figure != "rows_per_s" or workload.rows > 1)
        else ""
        for figure, digits in FIGURES
    ]


def growth_rows(rounds: Sequence[Round]) -> list[str]:
    """Return a row for each value of each axis of GROWTH of which all values were measured."""
    rows_of = {workload.name: workload.rows for workload in WORKLOADS}
    lines = []
    for axis, workloads in GROWTH.items():
        if not all(figure_values(rounds, GATEWAY, name, "p50_ms") for name in workloads.values()):
            continue
        for value, name in workloads.items():
            calls, p50, p99, cpu = (
                figure_values(rounds, GATEWAY, name, figure)
                for figure in ("calls_per_s", "p50_ms", "p99_ms", "server_us_per_call")
            )
            per_row = [us / rows_of[name] for us in cpu]
            figures = ((calls, 0), (p50, 2), (p99, 1), (cpu, 1), (per_row, 2))
            cells = [spread_text(values, digits) for values, digits in figures]
            lines.append(f"| {axis}: {value:,} | {' | '.join(cells)} |")
    return lines


def _generator_lines(rounds: Sequence[Round]) -> list[str]:
    """Return a line about the generator's own limit, if that was measured."""
    ceiling = figure_values(rounds, CANNED, CANNED, "calls_per_s")
    timed = [r["calls_per_s"] * r["generator_us_per_call"] for r in rounds if r["side"] != CANNED]
    if not ceiling or not timed:
        return []
    return [
        "",
        f"The generator alone, against constant bytes: {max(ceiling):,.0f} calls/s. In the rounds "
        f"above it used at most {max(timed) / 1e6:.0%} of its core.",
    ]


def _ratio_lines(rounds: Sequence[Round]) -> list[str]:
    """Return a line of ratios for each workload that both servers answered."""
    lines: list[str] = []
    for workload in WORKLOADS:
        calls = gateway_ratios(rounds, workload.name, "calls_per_s")
        if not calls:
            continue
        p50 = gateway_ratios(rounds, workload.name, "p50_ms")
        cpu = gateway_ratios(rounds, workload.name, "server_us_per_call")
        lines.append(
            f"{workload.name}: {GATEWAY} / {HANDWRITTEN} = {spread_text(calls, 2)} in calls/s, "
            f"{spread_text(p50, 2)} in p50, {spread_text(cpu, 2)} in CPU."
        )
    return lines


def _result_text(verdict: dict[str, Any]) -> str:
    if "ratio" not in verdict:
        return f"{verdict['promise']} ({verdict['failed']} did)"
    return (
        f"{verdict['promise']}: {verdict['ratio']:.2f} "
        f"({verdict['ratio_min']:.2f}-{verdict['ratio_max']:.2f})"
    )


def spread_text(values: Sequence[float], digits: int) -> str:
    """Return "median (lowest-highest)" of *values*, each with so many *digits*; one as it is."""
    low, middle, high = (f"{v:,.{digits}f}" for v in (min(values), median(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low}-{high})"
