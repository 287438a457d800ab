"""What a demo measured: as a table for people, as one value for scripts."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from protos import rollout_pb2
from turnout.demo.context import BadVersionResult, DemoContext
from turnout.views.terminal import named_values, text_table


def summary_json(context: DemoContext) -> dict[str, Any]:
    """Return everything as JSON values."""
    return {
        "held": context.checklist.passed,
        "steps": [
            {"step": s.name, "state": s.state, "seconds": round(s.took_s, 2), "seen": s.note}
            for s in context.checklist.steps
        ],
        "bad_versions": [bad_version_json(card) for card in context.bad_versions],
        **context.measured,
    }


def bad_version_json(card: BadVersionResult) -> dict[str, Any]:
    """Return what became of one bad version."""
    calls = card.status.calls
    return {
        "name": card.name,
        "version": card.version,
        "reason": card.status.reason,
        "four_times": times_json(card.status.times),
        "canary_calls": calls.canary,
        "answered_by_production_instead": calls.fallbacks,
        "customer_calls_failed": card.customers_failed,
    }


def times_json(times: rollout_pb2.RollbackTimes) -> dict[str, float]:
    """Return the four times of a rollback: ms from the first bad answer, and the one that counts.

    evidence_to_moved_ms is from the verdict to the last worker having swapped its routes.
    """
    first = times.first_bad_unix_ns
    return {
        "first_bad_ms": 0.0,
        "verdict_ms": (times.verdict_unix_ns - first) / 1e6,
        "moved_ms": (times.moved_unix_ns - first) / 1e6,
        "last_bad_ms": (times.last_bad_unix_ns - first) / 1e6,
        "evidence_to_moved_ms": (times.moved_unix_ns - times.verdict_unix_ns) / 1e6,
    }


def summary_view(context: DemoContext, *, steps: bool) -> RenderableType:
    """Return the summary as people read it; *steps*: with the checklist."""
    parts: list[RenderableType] = [Text()]
    if steps:
        marks = {"held": Text("held", "green"), "failed": Text("NOT HELD", "bold red")}
        rows = [
            (marks.get(s.state, Text("not played", "dim")), s.name, f"{s.took_s:.1f} s", s.note)
            for s in context.checklist.steps
        ]
        parts += [text_table(("", "step", "took", "seen"), rows), Text()]
    if context.bad_versions:
        parts += [_bad_versions_view(context.bad_versions), Text()]
    if context.measured:
        parts.append(
            named_values(
                {name.replace("_", " "): v for name, v in _flat_measurements(context.measured)}
            )
        )
    return Group(*parts)


def _bad_versions_view(cards: Sequence[BadVersionResult]) -> RenderableType:
    rows = []
    for card in cards:
        times = times_json(card.status.times)
        since = [f"{times[name]:+,.0f}" for name in ("verdict_ms", "moved_ms", "last_bad_ms")]
        named = f"{card.version}, {card.name}"
        rows.append((named, "0", *since, str(card.customers_failed), card.status.reason))
    columns = ("bad version", "first bad", "verdict", "moved", "last bad", "failed calls", "why")
    return text_table(
        columns, rows, title="the four times of each, in ms from its first bad answer"
    )


def _flat_measurements(measured: dict[str, Any]) -> list[tuple[str, object]]:
    return [
        (
            name,
            ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value,
        )
        for name, value in measured.items()
    ]
