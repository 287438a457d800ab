"""Turns rounds into a table, and checks promises and targets against them. Pure."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.serving.workloads import (
    CANNED,
    GATEWAY,
    HANDWRITTEN,
    SERVERS,
    TARGETS,
    WORKLOADS,
    Target,
)

Round = dict[str, Any]

THROUGHPUT_RATIO_MIN = 1.3
"""Promised: calls/s at saturation by key, over those of the server written by hand."""
SINGLE_CALLER_RATIO_MAX = 1.0
"""Promised: p50 of a single caller by key is no worse. Within NOISE_SHARE counts as no worse."""
NOISE_SHARE = 0.03
"""Two medians of one server differ by so much between runs on shared cores."""


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
        ("by key, 1 row", "calls_per_s", THROUGHPUT_RATIO_MIN, True),
        ("by key, 1 row, alone", "p50_ms", SINGLE_CALLER_RATIO_MAX, False),
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
            sign = ">=" if target.at_least else "<="
            unit = (
                " x by hand"
                if target.over_handwritten
                else f" x {target.against}" * bool(target.against)
            )
            results.append(
                {
                    "target": f"{target.workload}: {target.figure} {sign} {target.bound:,g}{unit}",
                    "measured": round(middle, 3),
                    "lowest": round(min(measured), 3),
                    "highest": round(max(measured), 3),
                    "held": held,
                }
            )
    return results


def _figures(rounds: Sequence[Round], target: Target) -> list[float]:
    """Return the figure that *target* bounds, for each round."""
    if target.over_handwritten:
        return gateway_ratios(rounds, target.workload, target.figure)
    figures = figure_values(rounds, GATEWAY, target.workload, target.figure)
    if not target.against:
        return figures
    reference = figure_values(rounds, GATEWAY, target.against, target.figure)
    return [a / b for a, b in zip(figures, reference, strict=False)]


def report_table(report: dict[str, Any]) -> str:
    """Return the report as Markdown: medians, and (lowest-highest) of the rounds."""
    # What was measured, on what.
    rounds = report["rounds"]
    machine = report["machine"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores (server on one; generator and store on the "
        f"other), Python {machine['python']}, grpcio {machine['packages']['grpcio']}, commit "
        f"{report['commit']}, {report['measured_at']}; median (lowest-highest) of the rounds.",
        "",
        "| calls | server | calls/s | rows/s | p50 ms | p99 ms | server CPU us/call |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += _workload_rows(rounds)
    if ratios := _ratio_lines(rounds):
        lines += ["", *ratios]
    # The generator's own limit.
    ceiling = figure_values(rounds, CANNED, CANNED, "calls_per_s")
    if ceiling:
        busiest = max(r["calls_per_s"] * r["generator_us_per_call"] for r in rounds[1:]) / 1e6
        lines += [
            "",
            f"The generator alone, against constant bytes: {max(ceiling):,.0f} calls/s. In the "
            f"rounds above it used at most {busiest:.0%} of its core.",
        ]
    # Targets and promises.
    if report["targets"]:
        lines += [
            "",
            f"| target ({report['ingress']} ingress) | measured | held |",
            "|---|---|---|",
        ]
    for target in report["targets"]:
        measured = f"{target['measured']:,g} ({target['lowest']:,g}-{target['highest']:,g})"
        lines.append(f"| {target['target']} | {measured} | {'yes' if target['held'] else 'NO'} |")
    lines.append("")
    lines += [
        f"{'held' if v['held'] else 'NOT HELD'}: {_result_text(v)}" for v in report["verdicts"]
    ]
    return "\n".join(lines)


def _workload_rows(rounds: Sequence[Round]) -> list[str]:
    """Return a row of the table for each workload and server that was timed."""
    lines: list[str] = []
    for workload in WORKLOADS:
        for side in SERVERS:
            calls = figure_values(rounds, side, workload.name, "calls_per_s")
            if not calls:
                continue
            rows = median(figure_values(rounds, side, workload.name, "rows_per_s"))
            spread = [
                spread_text(figure_values(rounds, side, workload.name, figure), digits)
                for figure, digits in (("p50_ms", 3), ("p99_ms", 2), ("server_us_per_call", 0))
            ]
            lines.append(
                f"| {workload.name} ({workload.connections} x {workload.streams}) | {side} | "
                f"{spread_text(calls, 0)} | {rows:,.0f} | {' | '.join(spread)} |"
            )
    return lines


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
    """Return "median (lowest-highest)" of *values*, each with so many *digits*."""
    low, middle, high = (f"{v:,.{digits}f}" for v in (min(values), median(values), max(values)))
    return f"{middle} ({low}-{high})"
