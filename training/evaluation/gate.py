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
class Check:
    """One thing a version had to show, and what it showed."""

    name: str
    passed: bool
    text: str

    def definition(self) -> dict[str, Any]:
        """Return JSON values, as the card holds them."""
        return {"name": self.name, "passed": self.passed, "text": self.text}


def quality(
    settings: GateSettings,
    *,
    held_out_rows: int,
    auc: Estimate,
    gain: Estimate | None,
    parity: ParityCertificate,
) -> list[Check]:
    """Return the checks that follow from numbers alone. *gain*: None when there is no champion."""
    value = -1.0 if auc.value is None else auc.value
    checks = [
        Check(
            "held_out_rows",
            held_out_rows >= settings.held_out_rows_min,
            f"{held_out_rows} held-out rows; at least {settings.held_out_rows_min}",
        ),
        Check("auc", value >= settings.auc_min, f"AUC {value:.4f}; at least {settings.auc_min}"),
        Check(
            "parity",
            parity.passed,
            f"{parity.rows_apart} of {parity.held_out_rows + parity.edge_rows} rows beyond "
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
            Check(
                "auc_gain",
                low > settings.auc_gain_low_min,
                f"AUC gain over the champion {said}; the low end must be above "
                f"{settings.auc_gain_low_min}",
            )
        )
    return checks


def servable(files: Mapping[str, bytes], *, model: str) -> Check:
    """Take the files through the very load that gateways use, golden rows included."""
    try:
        proved = bundle.verify(
            bundle.seal(files, model=model, author="gate", created_unix_ms=0), trusted_key=None
        )
        apart = bundle.golden_test(proved, bundle.load(proved))
    except VersionRefusedError as error:
        return Check("golden", False, str(error))
    rows = len(proved.golden_inputs)
    return Check("golden", True, f"{rows} golden rows scored again, at most {apart:.2g} apart")


def decide(name: str, checks: list[Check]) -> None:
    """Raise GateFailedError naming every failed check with its numbers; return when all passed."""
    failed = tuple(check.text for check in checks if not check.passed)
    if failed:
        raise GateFailedError(
            f"{name} failed {len(failed)} of {len(checks)} checks and is not registered: "
            + "; ".join(failed),
            failed,
        )
