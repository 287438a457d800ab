"""Good enough, and servable? Two blessings, in numbers, before anything is registered."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry import bundle
from registry.types import VersionRefusedError
from training.errors import GateFailedError
from training.evaluation.metrics import Estimate
from training.export.parity import ParityCertificate
from training.recipe import GateSettings


@dataclass(frozen=True, slots=True)
class GateCheck:
    """One thing a version had to show, and what it showed."""

    name: str
    passed: bool
    text: str

    def definition(self) -> dict[str, Any]:
        """Return JSON values, as the card holds them."""
        return {"name": self.name, "passed": self.passed, "text": self.text}


def quality_checks(
    settings: GateSettings,
    *,
    held_out_rows: int,
    auc: Estimate,
    gain: Estimate | None,
    parity: ParityCertificate,
) -> list[GateCheck]:
    """Return the checks that follow from numbers alone. *gain*: None when there is no champion."""
    value = -1.0 if auc.value is None else auc.value
    checks = [
        GateCheck(
            "held_out_rows",
            held_out_rows >= settings.held_out_rows_min,
            f"{held_out_rows} held-out rows; at least {settings.held_out_rows_min}",
        ),
        GateCheck(
            "auc", value >= settings.auc_min, f"AUC {value:.4f}; at least {settings.auc_min}"
        ),
        GateCheck(
            "parity",
            parity.passed,
            f"{parity.rows_over_limit} of {parity.held_out_rows + parity.edge_rows} rows beyond "
            f"{parity.difference_allowed:g}, at most {parity.difference_max:.2g} apart",
        ),
    ]
    if gain is not None:
        low = float("-inf") if gain.low is None else gain.low
        said = (
            "not defined"
            if gain.value is None
            else f"{gain.value:+.4f} [{low:+.4f}, {gain.high:+.4f}]"
        )
        checks.append(
            GateCheck(
                "auc_gain",
                low > settings.auc_gain_low_min,
                f"AUC gain over the champion {said}; the low end must be above "
                f"{settings.auc_gain_low_min}",
            )
        )
    return checks


def servable_check(files: Mapping[str, bytes], *, model: str) -> GateCheck:
    """Take the files through the very load that gateways use, golden rows included."""
    try:
        proved = bundle.verify_bundle(
            bundle.seal_files(files, model=model, author="gate", created_unix_ms=0),
            trusted_key=None,
        )
        apart = bundle.golden_test(proved, bundle.load_session(proved))
    except VersionRefusedError as error:
        return GateCheck("golden", False, str(error))
    rows = len(proved.golden_inputs)
    return GateCheck("golden", True, f"{rows} golden rows scored again, at most {apart:.2g} apart")


def enforce_gate(name: str, checks: list[GateCheck]) -> None:
    """Raise GateFailedError naming every failed check with its numbers; return when all passed."""
    failed = tuple(check.text for check in checks if not check.passed)
    if failed:
        raise GateFailedError(
            f"{name} failed {len(failed)} of {len(checks)} checks and is not registered: "
            + "; ".join(failed),
            failed,
        )
