"""Gates for how much worse a new checkout may be than an old one. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.serving.report import spread_text
from benchmarks.serving.workloads import (
    KEYED,
    KEYED_ROLLING,
    KEYED_SINGLE_CALLER,
    SENT,
    SENT_SINGLE_CALLER,
)

OLD, NEW = "old", "new"
NATIVE, GRPCIO = "native", "grpcio"
SATURATED_WORSE_MAX = 0.02
SINGLE_CALLER_WORSE_MAX = 0.03
GRPCIO_DEARER_US_MAX = 2.0
DEGRADED_SHARE_MAX = 0.01
MEASURED = {
    NATIVE: (KEYED, SENT, KEYED_ROLLING, KEYED_SINGLE_CALLER, SENT_SINGLE_CALLER),
    GRPCIO: (KEYED, KEYED_SINGLE_CALLER, SENT_SINGLE_CALLER),
}
"""Ingress -> the workloads that are timed over it."""
FIGURES = (("calls_per_s", "calls/s", 0), ("server_us_per_call", "CPU us/call", 1))
SINGLE_CALLER_FIGURES = (*FIGURES, ("p50_ms", "p50 ms", 3))
"""Key of a round, name in the table, digits."""

Round = dict[str, Any]


@dataclass(frozen=True)
class ComparedFigure:
    """One figure of one workload on both sides, and the gate that bounds it."""

    case: str
    figure: str
    old: str
    new: str
    ratio: float | None
    """New over old: the median over the rounds, in each of which each side had two turns."""
    gate: str
    """Empty for a figure that is only shown."""
    passed: bool = True


def compare_figures(rounds: Sequence[Round]) -> list[ComparedFigure]:
    """Return every figure of every workload, in the order of MEASURED."""
    rows: list[ComparedFigure] = []
    for ingress, workloads in MEASURED.items():
        for workload in workloads:
            timed = [r for r in rounds if (r["ingress"], r["workload"]) == (ingress, workload)]
            if not timed:
                continue
            single_caller = workload in (KEYED_SINGLE_CALLER, SENT_SINGLE_CALLER)
            for key, name, digits in SINGLE_CALLER_FIGURES if single_caller else FIGURES:
                old, new = ([float(r[key]) for r in timed if r["side"] == s] for s in (OLD, NEW))
                ratio = median(
                    (new[turn] + new[turn + 1]) / (old[turn] + old[turn + 1])
                    for turn in range(0, len(old), 2)
                )
                gate, passed = _gate(ingress, key, single_caller, ratio, median(new) - median(old))
                texts = spread_text(old, digits), spread_text(new, digits)
                rows.append(
                    ComparedFigure(f"{ingress}: {workload}", name, *texts, ratio, gate, passed)
                )
    return rows


def _gate(
    ingress: str, key: str, single_caller: bool, ratio: float, difference: float
) -> tuple[str, bool]:
    """Return a figure's gate as text, and whether it passed; empty and True without a gate."""
    if single_caller:
        if key != "p50_ms":
            return "", True
        bound = 1 + SINGLE_CALLER_WORSE_MAX
        return f"ratio <= {bound:g}", ratio <= bound
    if ingress == GRPCIO:
        if key != "server_us_per_call":
            return "", True
        gate = f"new - old <= {GRPCIO_DEARER_US_MAX:g} us (is {difference:+.1f})"
        return gate, difference <= GRPCIO_DEARER_US_MAX
    if key == "calls_per_s":
        return f"ratio >= {1 - SATURATED_WORSE_MAX:g}", ratio >= 1 - SATURATED_WORSE_MAX
    return f"ratio <= {1 + SATURATED_WORSE_MAX:g}", ratio <= 1 + SATURATED_WORSE_MAX


def invalid_rounds(rounds: Sequence[Round]) -> list[str]:
    """Return why rounds cannot be compared: failed calls, or answers without the store."""
    return [
        f"{r['ingress']}: {r['workload']}, {r['side']}: {r['failed']} calls failed, "
        f"{r['degraded_share']:.1%} of the rows were answered without the store"
        for r in rounds
        if r["failed"] or r["degraded_share"] > DEGRADED_SHARE_MAX
    ]


def comparison_table(rows: Sequence[ComparedFigure]) -> str:
    """Return the rows as Markdown: medians, and (lowest-highest) of the turns."""
    lines = [
        "| case | figure | old | new | new/old | gate | passed |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = "-" if row.ratio is None else f"{row.ratio:.3f}"
        passed = "" if not row.gate else "yes" if row.passed else "NO"
        cells = (row.case, row.figure, row.old, row.new, ratio, row.gate, passed)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
