"""Prints what an adoption made: the certificate, the metrics and what comes next."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turnout.cli.context import CommandContext
from turnout.views.cards import format_estimate
from turnout.views.golden_evidence import evidence_lines, golden_evidence
from turnout.views.terminal import named_values, terminal

if TYPE_CHECKING:
    from protos import registry_pb2
    from turnout.adoption.adoption_run import AdoptedVersion


def report(
    context: CommandContext,
    model: str,
    adopted: "AdoptedVersion",
    version: "registry_pb2.Version | None",
    *,
    kept: Path,
    out: Path | None,
    tried: Mapping[str, Any] | None,
    seconds: float,
) -> None:
    """Print the version, what proves it, and the next command."""
    # The card is what an approver will see, so its lines are shown here too.
    card = json.loads(adopted.files["card.json"])
    metrics = {name: estimate.definition() for name, estimate in adopted.metrics.items()}
    value = {
        "model": model,
        "version": None if version is None else version.label,
        "digest": None if version is None else version.digest,
        "origin": adopted.foreign.origin,
        "inputs": list(adopted.contract.names),
        "outputs": list(adopted.contract.outputs),
        "sample": adopted.sample,
        "evidence": golden_evidence(card),
        "graph": card["graph"],
        "native": card["native"],
        "metrics": metrics,
        "answers": str(kept),
        "out": None if out is None else str(out),
        "prediction": tried,
        "seconds": round(seconds, 1),
    }
    # People read the same as sentences.
    shown = {
        "version": "not registered" if version is None else f"{model} {version.label}",
        "inputs": ", ".join(adopted.contract.names),
        "outputs": ", ".join(adopted.contract.outputs),
        "adapted graph": f"{card['graph']['rows']:,} rows give the bits of the original graph",
        **evidence_lines(card),
        **{f"{name}, on the sample": format_estimate(item) for name, item in metrics.items()},
        "answers": str(kept),
        "time": f"{seconds:.1f} s",
    }
    # Decisions that float32 changes are no part of the table, so that no reader passes over them.
    screen = terminal(context.json)
    screen.result(value, named_values(shown))
    for line in _flips(card):
        screen.note(line)
    # What comes next is another person's task.
    if tried is not None:
        screen.hint(f"It answers: {tried['scores'][0]} (turnout models shows it)")
    elif version is not None:
        screen.hint(
            f"Next, by another person: turnout versions approve {model} {version.label} "
            "--policy initial (or another policy, if the model has a production)"
        )
    elif out is not None:
        screen.hint(f"Next: turnout versions register {model} {out}")


def _flips(card: Mapping[str, Any]) -> list[str]:
    """Return what float32 changes, in a sentence; nothing when it changes nothing."""
    rounding = card.get("parity") or card.get("rounding") or {}
    if not rounding.get("rounding_flips"):
        return []
    return [
        f"Callers send float32, and the model was made for float64: {rounding['rounding_flips']} "
        f"of {rounding['rounded_rows']} sample rows with rounded numbers get another decision."
    ]
