"""The summary of a demo: as tables for people, and as one JSON value for scripts."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from protos import rollout_pb2
from turnout.demo.context import BadVersionResult, DemoContext
from turnout.views.terminal import named_values, text_table


def summary_json(context: DemoContext) -> dict[str, Any]:
    """Return all results of the demo as JSON values."""
    return {
        "passed": context.checklist.passed,
        "steps": [
            {"step": s.name, "state": s.state, "seconds": round(s.took_s, 2), "seen": s.note}
            for s in context.checklist.steps
        ],
        "bad_versions": [bad_version_json(result) for result in context.bad_versions],
        **context.measured,
    }


def bad_version_json(result: BadVersionResult) -> dict[str, Any]:
    """Return how the rollout of one bad version ended, as JSON values."""
    calls = result.status.calls
    return {
        "name": result.name,
        "version": result.version,
        "reason": result.status.reason,
        "four_times": times_json(result.status.times),
        "canary_calls": calls.canary,
        "answered_by_production_instead": calls.fallbacks,
        "customer_calls_failed": result.customers_failed,
    }


def times_json(times: rollout_pb2.RollbackTimes) -> dict[str, float]:
    """Return the four times of a rollback, in ms after the first bad answer.

    evidence_to_moved_ms  from the verdict until the last worker had swapped its routes. This is
                          the time that is promised to be at most 1,000 ms.
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
    """Return the summary as tables; with *steps*, the checklist is among them."""
    parts: list[RenderableType] = [Text()]
    if steps:
        marks = {"passed": Text("passed", "green"), "failed": Text("FAILED", "bold red")}
        rows = [
            (marks.get(s.state, Text("not run", "dim")), s.name, f"{s.took_s:.1f} s", s.note)
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


def _bad_versions_view(results: Sequence[BadVersionResult]) -> RenderableType:
    rows = []
    for result in results:
        times = times_json(result.status.times)
        since = [f"{times[name]:+,.0f}" for name in ("verdict_ms", "moved_ms", "last_bad_ms")]
        named = f"{result.version}, {result.name}"
        rows.append((named, "0", *since, str(result.customers_failed), result.status.reason))
    columns = ("bad version", "first bad", "verdict", "moved", "last bad", "failed calls", "reason")
    return text_table(
        columns, rows, title="the four times of each rollback, in ms after its first bad answer"
    )


def _flat_measurements(measured: dict[str, Any]) -> list[tuple[str, object]]:
    return [
        (
            name,
            ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value,
        )
        for name, value in measured.items()
    ]
