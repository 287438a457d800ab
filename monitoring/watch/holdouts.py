"""What the history says of the holdout of each model, for looks at business."""

import json
from dataclasses import dataclass, field

from monitoring.incidents.other_changes import ChangeEntry
from monitoring.looks.uplift_look import ConfiguredHoldout

DAY_MS = 86_400_000
BASIS_POINTS = 10_000
DEPLOYMENT = "/deployment"


@dataclass(slots=True)
class HoldoutHistory:
    """Follows the deployments of all models."""

    _changes: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Model -> (Unix milliseconds, basis points of the holdout), oldest first."""

    def note_entry(self, entry: ChangeEntry) -> None:
        """Note a deployment that changes the holdout. Entries come in the order of the history."""
        if not entry.action.startswith("deploy") or not entry.object.endswith(DEPLOYMENT):
            return
        try:
            share = int(json.loads(entry.after)["holdout_bp"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        model = entry.object.removeprefix("model/").removesuffix(DEPLOYMENT)
        changes = self._changes.setdefault(model, [])
        if not changes or changes[-1][1] != share:
            changes.append((entry.at_unix_ms, share))

    def holdout_of(self, model: str, first_day: int, last_day: int) -> ConfiguredHoldout | None:
        """Return what was configured in [first_day, last_day], Unix days; None: no holdout.

        The salt of a model never changes, so another share is what draws customers anew.
        """
        begin, end = first_day * DAY_MS, (last_day + 1) * DAY_MS
        shares: list[int] = []
        for at_ms, share in self._changes.get(model, []):
            if at_ms >= end:
                break
            # The newest change before the period is what it begins with.
            if at_ms <= begin:
                shares.clear()
            shares.append(share)
        if not any(shares):
            return None
        return ConfiguredHoldout(shares[-1] / BASIS_POINTS, len(shares))
