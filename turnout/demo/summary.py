"""What a demo measured: as a table for people, as one value for scripts."""

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from protos import rollout_pb2
from turnout.demo.scene import Scene
from turnout.terminal import facts, table


def summary_value(scene: Scene) -> dict[str, Any]:
    """Return everything as JSON values."""
    return {
        "held": scene.checklist.held,
        "steps": [
            {"step": s.name, "state": s.state, "seconds": round(s.took_s, 2), "seen": s.note}
            for s in scene.checklist.steps
        ],
        "four_times": None if scene.rollback is None else times_value(scene.rollback.times),
        **scene.measured,
    }


def times_value(times: rollout_pb2.RollbackTimes) -> dict[str, float]:
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


def summary_view(scene: Scene, *, steps: bool) -> RenderableType:
    """Return the summary as people read it; *steps*: with the checklist."""
    parts: list[RenderableType] = [Text()]
    if steps:
        marks = {"held": Text("held", "green"), "failed": Text("NOT HELD", "bold red")}
        rows = [
            (marks.get(s.state, Text("not played", "dim")), s.name, f"{s.took_s:.1f} s", s.note)
            for s in scene.checklist.steps
        ]
        parts += [table(("", "step", "took", "seen"), rows), Text()]
    if scene.rollback is not None:
        times = times_value(scene.rollback.times)
        rows_of_times = [
            ("first bad answer", "0 ms", ""),
            ("verdict", f"{times['verdict_ms']:+,.0f} ms", "evidence enough"),
            (
                "traffic moved",
                f"{times['moved_ms']:+,.0f} ms",
                f"on every worker, {times['evidence_to_moved_ms']:,.0f} ms after the verdict",
            ),
            ("last bad answer", f"{times['last_bad_ms']:+,.0f} ms", "given by production instead"),
        ]
        parts += [table(("the rollback's four times", "", ""), rows_of_times), Text()]
    if scene.measured:
        parts.append(facts({name.replace("_", " "): v for name, v in _flat(scene.measured)}))
    return Group(*parts)


def _flat(measured: dict[str, Any]) -> list[tuple[str, object]]:
    return [
        (
            name,
            ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value,
        )
        for name, value in measured.items()
    ]
