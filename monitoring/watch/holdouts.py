"""What the history says of the holdout of each model, for looks at business."""

import json
from dataclasses import dataclass, field

from monitoring.incidents.other_changes import ChangeEntry
from monitoring.looks.uplift_look import ConfiguredHoldout, holdout_of_period

DEPLOYMENT = "/deployment"


@dataclass(slots=True)
class HoldoutHistory:
    """Follows the deployments of all models."""

    _changes: dict[str, list[tuple[int, int, bytes]]] = field(default_factory=dict)
    """Model -> (Unix seconds, basis points of the holdout, its salt), oldest first."""

    def note_entry(self, entry: ChangeEntry) -> None:
        """Note a deployment that changes the holdout. Entries come in the order of the history."""
        if not entry.action.startswith("deploy") or not entry.object.endswith(DEPLOYMENT):
            return
        try:
            after = json.loads(entry.after)
            drawn = int(after["holdout_bp"]), bytes.fromhex(after["holdout_salt"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        model = entry.object.removeprefix("model/").removesuffix(DEPLOYMENT)
        changes = self._changes.setdefault(model, [])
        if not changes or changes[-1][1:] != drawn:
            changes.append((entry.at_unix_ms // 1_000, *drawn))

    def holdout_of(self, model: str, first_day: int, last_day: int) -> ConfiguredHoldout | None:
        """Return what was configured in [first_day, last_day], Unix days; None: no holdout."""
        return holdout_of_period(self._changes.get(model, []), first_day, last_day)
