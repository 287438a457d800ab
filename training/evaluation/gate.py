"""The gate: checks that a version must pass before it is registered, with their numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry import bundle, scoring
from registry.types import VersionRefusedError
from training.errors import GateFailedError
from training.evaluation.leakage import strongest_column
from training.evaluation.metrics import Estimate
from training.export.parity import ParityCertificate
from training.recipe import GateSettings

GAIN_CHECK = "auc_gain"
"""Name of the check that a version is better than its champion."""
HELD_OUT_CLASS_MIN = 5
"""Held-out rows of a class below which a metric is a matter of chance."""
CLASS_ROWS_MIN = 20
"""Rows of either class from which on the area of one feature is more than chance."""


@dataclass(frozen=True, slots=True)
class GateCheck:
    """One condition, whether the version met it, and a text with the numbers."""

    name: str
    passed: bool
    text: str

    def definition(self) -> dict[str, Any]:
        """Return the check as JSON values for the card."""
        return {"name": self.name, "passed": self.passed, "text": self.text}


def quality_checks(
    settings: GateSettings,
    *,
    held_out_rows: int,
    auc: Estimate,
    gain: Estimate | None,
    parity: ParityCertificate,
) -> list[GateCheck]:
    """Return the checks of rows, AUC, parity and gain. *gain* is None without a champion."""
    # Checks of every version.
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
            f"{parity.rows_over_limit} of {parity.held_out_rows + parity.edge_rows} rows differ by "
            f"more than {parity.difference_allowed:g}; the largest difference is "
            f"{parity.difference_max:.2g}",
        ),
    ]
    # A version with a champion must be better, beyond doubt.
    if gain is not None:
        low = float("-inf") if gain.low is None else gain.low
        # A gain that is not defined fails, because its low end counts as minus infinity.
        gain_text = (
            "not defined"
            if gain.value is None
            else f"{gain.value:+.4f} [{low:+.4f}, {gain.high:+.4f}]"
        )
        checks.append(
            GateCheck(
                GAIN_CHECK,
                low > settings.auc_gain_low_min,
                f"AUC gain over the champion {gain_text}; the low end must be above "
                f"{settings.auc_gain_low_min}",
            )
        )
    return checks


def held_out_classes_check(positive: NDArray[np.bool_]) -> GateCheck:
    """Return the check that the held-out labels, (M,), have enough rows of either class."""
    fewer = int(min(positive.sum(), (~positive).sum()))
    return GateCheck(
        "held_out_classes",
        fewer >= HELD_OUT_CLASS_MIN,
        f"{fewer} held-out rows of the rarer class; at least {HELD_OUT_CLASS_MIN}",
    )


def leakage_check(
    settings: GateSettings,
    names: tuple[str, ...],
    columns: NDArray[np.float32],
    positive: NDArray[np.bool_],
    fitted: NDArray[np.bool_],
) -> GateCheck:
    """Return the check that no column of (N, F) alone tells the labels, (N,), apart.

    names   the F names of the columns.
    fitted  (N,) bool, the rows that the learner is fitted on.
    """
    fewer = int(min((positive & fitted).sum(), (~positive & fitted).sum()))
    if fewer < CLASS_ROWS_MIN:
        text = f"{fewer} rows of one class to fit on; leakage is looked for from {CLASS_ROWS_MIN}"
        return GateCheck("leakage", True, text)
    strongest, area = strongest_column(columns, positive, fitted)
    passed = area <= settings.feature_auc_max
    text = f"{names[strongest]!r} alone has an AUC of {area:.4f}, the largest of one feature; "
    text += f"at most {settings.feature_auc_max}"
    if not passed:
        text += (
            ". It may be known only after the label's instant, or be the label itself: leave it "
            "out, or set GateSettings(feature_auc_max=1.0) if it is meant"
        )
    return GateCheck("leakage", passed, text)


def servable_check(files: Mapping[str, bytes], *, model: str) -> GateCheck:
    """Verify, load and golden-test the files with the functions that gateways use."""
    try:
        verified = bundle.verify_bundle(
            bundle.seal_files(files, model=model, author="gate", created_unix_ms=0),
            trusted_key=None,
        )
        difference = scoring.golden_test(verified, scoring.load_session(verified))
    except VersionRefusedError as error:
        return GateCheck("golden", False, str(error))
    rows = len(verified.golden_inputs)
    return GateCheck(
        "golden",
        True,
        f"{rows} golden rows scored again; the largest difference is {difference:.2g}",
    )


def enforce_gate(name: str, checks: list[GateCheck]) -> None:
    """Raise GateFailedError with the texts of the failed checks; return if all checks passed."""
    failed = [check for check in checks if not check.passed]
    if failed:
        texts = tuple(check.text for check in failed)
        raise GateFailedError(
            f"{name} failed {len(failed)} of {len(checks)} checks and is not registered: "
            + "; ".join(texts),
            texts,
            [check.definition() for check in checks],
            only_better=all(check.name == GAIN_CHECK for check in failed),
        )
