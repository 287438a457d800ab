"""The gate: checks that a version must pass before it is registered, with their numbers."""

from collections.abc import Mapping, Sequence
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

GAIN = "_gain"
"""End of the name of the check that a version is better than its champion, as in auc_gain."""
LARGE = 100.0
"""From here on a gain needs no four places."""
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
    skill: Sequence[GateCheck],
    gain: GateCheck | None,
    parity: ParityCertificate,
) -> list[GateCheck]:
    """Return the checks of rows, skill, parity and gain.

    skill  the checks of the task's metrics.
    gain   that the version is better than its champion; None without a champion.
    """
    # Values may differ by a part of themselves too.
    apart = f"{parity.difference_allowed:g}"
    if parity.relative_allowed:
        apart += f" + {parity.relative_allowed:g} of the score"
    # The order is that of the card.
    return [
        GateCheck(
            "held_out_rows",
            held_out_rows >= settings.held_out_rows_min,
            f"{held_out_rows} held-out rows; at least {settings.held_out_rows_min}",
        ),
        *skill,
        GateCheck(
            "parity",
            parity.passed,
            f"{parity.rows_over_limit} of {parity.held_out_rows + parity.edge_rows} rows differ by "
            f"more than {apart}; the largest difference is {parity.difference_max:.2g}",
        ),
        *([] if gain is None else [gain]),
    ]


def auc_check(settings: GateSettings, auc: Estimate) -> GateCheck:
    """Return the check that the AUC is large enough."""
    value = -1.0 if auc.value is None else auc.value
    text = f"AUC {value:.4f}; at least {settings.auc_min}"
    return GateCheck("auc", value >= settings.auc_min, text)


def gain_check(metric: str, shown: str, gain: Estimate, low_min: float) -> GateCheck:
    """Return the check that a version is better than its champion, beyond doubt.

    metric  the metric that it must gain in, and *shown*, its name for people.
    """
    text = f"{shown} gain over the champion {_gain_text(gain)}; the low end must be above {low_min}"
    return GateCheck(f"{metric}{GAIN}", _low(gain) > low_min, text)


def skill_check(shown: str, constant: str, gain: Estimate) -> GateCheck:
    """Return the check that a version is better than a model that knows nothing of a row.

    shown     the metric, for people.
    constant  what that model says of every row.
    """
    text = f"{shown} gain over {constant} {_gain_text(gain)}; the low end must be above 0"
    return GateCheck("skill", _low(gain) > 0.0, text)


def metric_checks(settings: GateSettings, metrics: Mapping[str, Estimate]) -> list[GateCheck]:
    """Return the checks of metrics_min and metrics_max. A value that is not defined fails."""
    checks = []
    for word, sign, bounds in (
        ("least", 1.0, settings.metrics_min),
        ("most", -1.0, settings.metrics_max),
    ):
        for name, bound in bounds.items():
            value = metrics[name].value
            passed = value is not None and sign * value >= sign * bound
            shown = "not defined" if value is None else f"{value:,.6g}"
            checks.append(GateCheck(name, passed, f"{name} {shown}; at {word} {bound:,.6g}"))
    return checks


def _low(gain: Estimate) -> float:
    """Return the low end. Of a gain that is not defined it counts as minus infinity."""
    return float("-inf") if gain.low is None else gain.low


def _gain_text(gain: Estimate) -> str:
    if gain.value is None:
        return "not defined"
    # Metrics in a unit may be in the thousands.
    form = "+.4f" if abs(gain.value) < LARGE else "+,.1f"
    return f"{gain.value:{form}} [{_low(gain):{form}}, {gain.high:{form}}]"


def held_out_classes_checks(events: Mapping[str, NDArray[np.bool_]]) -> list[GateCheck]:
    """Return the check that the held-out rows have enough rows of each class; none for values.

    events  name of a class -> the held-out rows that have it, (M,) bool.
    """
    if not events:
        return []
    fewer = min(int(rows.sum()) for rows in events.values())
    return [
        GateCheck(
            "held_out_classes",
            fewer >= HELD_OUT_CLASS_MIN,
            f"{fewer} held-out rows of the rarest class; at least {HELD_OUT_CLASS_MIN}",
        )
    ]


def leakage_check(
    settings: GateSettings,
    names: tuple[str, ...],
    columns: NDArray[np.float32],
    events: Mapping[str, NDArray[np.bool_]],
    fitted: NDArray[np.bool_],
) -> GateCheck:
    """Return the check that no column of (N, F) alone tells the rows of an event, (N,), apart.

    names   the F names of the columns.
    events  name -> the rows in which it happened. The name is for people, and may be empty.
    fitted  (N,) bool, the rows that the learner is fitted on.
    """
    # Too few rows of an event are told by chance.
    if not events:
        return GateCheck("leakage", True, "without outcomes there is no leakage to look for")
    fewer = {
        name: int(min((event & fitted).sum(), (~event & fitted).sum()))
        for name, event in events.items()
    }
    looked_at = [name for name, rows in fewer.items() if rows >= CLASS_ROWS_MIN]
    if not looked_at:
        text = f"{max(fewer.values())} rows of one class to fit on; leakage is looked for from "
        return GateCheck("leakage", True, text + str(CLASS_ROWS_MIN))
    # The strongest column of any event.
    found = {name: strongest_column(columns, events[name], fitted) for name in looked_at}
    event = max(found, key=lambda name: found[name][1])
    strongest, area = found[event]
    passed = area <= settings.feature_auc_max
    of_event = f" for {event}" if event else ""
    text = f"{names[strongest]!r} alone has an AUC of {area:.4f}{of_event}, the largest of one "
    text += f"feature; at most {settings.feature_auc_max}"
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
            only_better=all(check.name.endswith(GAIN) for check in failed),
        )
