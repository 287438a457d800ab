"""What proves that a version's file scores as the model that it was made from.

All of it is what the version's card states. Its author wrote the card.
"""

from collections.abc import Mapping
from typing import Any

NO_TRUTH = "scored by this very file; nothing proves that it equals the model it was made from"
NO_CERTIFICATE = "none: this file was not compared with the model it was made from"
NO_METRICS = "none: this version was not measured on labels"


def golden_evidence(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the evidence in *card* as JSON values, for `--json`.

    golden_scored_by  the library that scored the golden rows; null: model.onnx itself.
    parity            whether a comparison with the original model is in the card, and passed.
    difference_max    its largest difference; null without one.
    """
    parity = _mapping(card, "parity")
    passed = parity.get("passed") is True
    scored_by = str(_mapping(card, "golden").get("scored_by") or "")
    return {
        "golden_scored_by": scored_by or None,
        "parity": passed,
        "difference_max": parity.get("difference_max") if passed else None,
    }


def evidence_lines(card: Mapping[str, Any]) -> dict[str, object]:
    """Return the evidence in *card* as named sentences, for `versions show` and an approver."""
    evidence = golden_evidence(card)
    lines = _origin_lines(card)
    # What the golden rows prove.
    if evidence["golden_scored_by"]:
        lines["golden rows"] = f"scored by {evidence['golden_scored_by']}, the original"
    elif evidence["parity"]:
        lines["golden rows"] = "scored by this very file; the parity certificate is the proof"
    else:
        lines["golden rows"] = NO_TRUTH
    # What was compared with the original model.
    lines["parity certificate"] = _parity_line(card, evidence)
    if not card.get("metrics"):
        lines["metrics"] = NO_METRICS
    elif card.get("metrics_note"):
        lines["metrics"] = str(card["metrics_note"])
    # Versions from before do not say it.
    native = _mapping(card, "native")
    if native:
        lines["scored"] = scorer_line(native)
    return lines


def scorer_line(native: Mapping[str, Any]) -> str:
    """Return who scores a version in gateways, by the card's `native`, and why not natively."""
    if native.get("used") is True:
        return "natively, by the gateway itself"
    return f"by ONNX Runtime: {native.get('reason') or 'its graph is of another kind'}"


def _origin_lines(card: Mapping[str, Any]) -> dict[str, object]:
    """Return where an adopted version comes from; nothing for others."""
    origin = _mapping(card, "adopted").get("origin")
    if not origin:
        return {}
    sample = _mapping(card, "data").get("sample") or "unknown"
    return {"made from": str(origin), "sample rows": str(sample)}


def _parity_line(card: Mapping[str, Any], evidence: Mapping[str, Any]) -> str:
    if not evidence["parity"]:
        return NO_CERTIFICATE
    parity = _mapping(card, "parity")
    rows = sum(_count(parity.get(name)) for name in ("held_out_rows", "sample_rows", "edge_rows"))
    largest = evidence["difference_max"]
    differ = f"{largest:.3g}" if isinstance(largest, int | float) else "?"
    return f"{rows:,} rows compared with the original; the largest difference is {differ}"


def _mapping(card: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = card.get(name)
    return value if isinstance(value, Mapping) else {}


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
