"""How training runs are shown: their states, a table, and the differences of two."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from protos import registry_pb2 as pb

STATE_NAMES = {
    pb.Run.RUNNING: "running",
    pb.Run.REGISTERED: "registered",
    pb.Run.WRITTEN: "written",
    pb.Run.CHAMPION_KEPT: "champion kept",
    pb.Run.GATE_FAILED: "gate failed",
    pb.Run.FAILED: "failed",
    pb.Run.QUEUED: "queued",
    pb.Run.SKIPPED: "skipped",
    pb.Run.CANCELLED: "cancelled",
}
JSON_FIELDS = ("inputs_json", "result_json")


def state_name(run: pb.Run) -> str:
    """Return the state of a run for display."""
    if run.silent:
        return "silent"
    return STATE_NAMES.get(run.state, "unknown")


def run_json(run: pb.Run, *, whole: bool) -> dict[str, Any]:
    """Return a run as JSON values; *whole* with its inputs and its result."""
    value: dict[str, Any] = {
        field.name: getattr(run, field.name)
        for field in run.DESCRIPTOR.fields
        if field.name not in JSON_FIELDS
    }
    value["state"] = state_name(run)
    if whole:
        value["inputs"] = json.loads(run.inputs_json or b"{}")
        value["result"] = json.loads(run.result_json or b"{}")
    return value


def run_result(run: pb.Run) -> str:
    """Return the version that a run made, or why it made none; empty while it runs."""
    if run.version:
        return f"{run.model} {run.version}"
    return run.error.partition(";")[0] or run.version_digest[:12]


def duration(run: pb.Run) -> str:
    """Return how long a run took, or has been taking until its last sign of life."""
    end_ms = run.ended_unix_ms or run.heard_unix_ms
    began_ms = run.taken_unix_ms or run.begun_unix_ms or end_ms
    seconds = max(end_ms - began_ms, 0) / 1_000
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (path, first, second) for each value in which two runs differ, in order of the path.

    first, second  JSON objects, such as the inputs of both.
    """
    left, right = dict(_flat(first)), dict(_flat(second))
    paths = dict.fromkeys([*left, *right])
    return [
        (path, *_shown(left.get(path, "-"), right.get(path, "-")))
        for path in sorted(paths)
        if left.get(path, "-") != right.get(path, "-")
    ]


def _shown(first: object, second: object) -> tuple[str, str]:
    """Return two different values as texts that differ, with as few digits as that takes."""
    short, other = (f"{v:.6g}" if isinstance(v, float) else str(v) for v in (first, second))
    return (short, other) if short != other else (repr(first), repr(second))


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, object]]:  # noqa: ANN401  JSON
    """Yield (path, value) of each number and text in a JSON value."""
    if isinstance(value, Mapping):
        items: Sequence[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list):
        # Checks and features have names, which say more than their place.
        items = [
            (item.get("name", place) if isinstance(item, Mapping) else place, item)
            for place, item in enumerate(value)
        ]
    else:
        yield path, value
        return
    for name, item in items:
        yield from _flat(item, f"{path}.{name}" if path else str(name))
