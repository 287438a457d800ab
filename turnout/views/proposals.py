"""How the result of a training run is shown to who approves: trigger, champion, gain, decay."""

import json
from collections.abc import Mapping
from typing import Any

from protos import registry_pb2 as pb
from turnout.views.runs import state_name

KEYS = ("value", "low", "high")


def proposal_json(run: pb.Run) -> dict[str, Any]:
    """Return what a run proposes, as JSON values: its version, and the evidence for it.

    run  with its inputs and result.
    """
    inputs, result = _content(run)
    waiting = run.state == pb.Run.REGISTERED
    return {
        "run": run.id,
        "state": state_name(run),
        "model": run.model,
        "setting": run.setting,
        "version": run.version or None,
        "digest": run.version_digest or None,
        "trigger": run.cause,
        "champion": inputs.get("champion") or None,
        "gain": _gain(result),
        "decay": result.get("champion"),
        "next_step": next_step(run) if waiting else None,
    }


def proposal_lines(run: pb.Run) -> dict[str, object]:
    """Return trigger, champion, gain and decay of a run for display."""
    inputs, result = _content(run)
    lines: dict[str, object] = {
        "run": f"{run.id[:8]} ({run.cause})",
        "champion": str(inputs.get("champion") or "none")[:12],
    }
    if _gain(result):
        lines["gain over the champion"] = interval(_gain(result))
    judged = result.get("champion")
    if isinstance(judged, Mapping):
        lines["champion on the newest labels"] = champion_text(judged)
    return lines


def champion_text(judged: Mapping[str, Any]) -> str:
    """Return what a champion is worth on the newest labels, from a run's result or a card."""
    if judged.get("unknown"):
        return f"not known: {judged['unknown']}"
    text = f"{judged.get('metric')} {interval(judged.get('now'), sign='')}"
    text += f" on {judged.get('rows')} labels, {interval(judged.get('registered'), sign='')}"
    return (
        f"{text} when it was registered: {interval(judged.get('change'))}, {judged.get('verdict')}"
    )


def decay_text(judged: object) -> str:
    """Return the change of a champion since it was registered, in short; `-` if it is unknown."""
    if not isinstance(judged, Mapping):
        return "-"
    text = interval(judged.get("change"))
    return "-" if text == "-" else f"{text}, {judged.get('verdict')}"


def interval(estimate: object, sign: str = "+") -> str:
    """Return a number with its interval, such as `+0.0360 [+0.0240, +0.0480]`; `-` if undefined."""
    if not isinstance(estimate, Mapping):
        return "-"
    numbers = [estimate.get(key) for key in KEYS]
    if not all(isinstance(number, int | float) for number in numbers):
        return "-"
    value, low, high = (f"{number:{sign}.4f}" for number in numbers)
    return f"{value} [{low}, {high}]"


def next_step(run: pb.Run) -> str:
    """Return the command of the person who decides about the version of a run."""
    inputs, _ = _content(run)
    first = " --policy initial" if not inputs.get("champion") else ""
    return f"turnout versions approve {run.model} {run.version}{first}"


def step_after_approval(model: str, approval: pb.Approval, policy: str) -> str:
    """Return the commands that bring an approved version into production.

    A version that becomes production at once is loaded by the gateways first.
    """
    label = approval.version
    if approval.direct:
        loaded = f"turnout splits preload {model} {label}"
        return f"{loaded} && turnout splits set {model} --production {label}"
    return f"turnout rollout start {model} {label} --policy {policy}"


def _gain(result: Mapping[str, Any]) -> object:
    """Return the gain over the champion, whichever metric the task is judged by."""
    return next((value for name, value in result.items() if name.endswith("_gain")), None)


def _content(run: pb.Run) -> tuple[dict[str, Any], dict[str, Any]]:
    return json.loads(run.inputs_json or b"{}"), json.loads(run.result_json or b"{}")
