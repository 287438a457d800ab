"""What the history says of the holdout of each model, for looks at business."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from host.clock import DAY_S
from monitoring.incidents.other_changes import ChangeEntry
from monitoring.looks.uplift_look import ConfiguredHoldout
from registry.types import ALL_BP

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


def holdout_of_period(
    changes: Iterable[tuple[int, int, bytes]], first_day: int, last_day: int
) -> ConfiguredHoldout | None:
    """Return what deployments say of the holdout of a period; None: there was none.

    changes  (Unix seconds, share in basis points, salt) of each deployment of the model, oldest
             first. What the newest one before the period says is in force at its beginning.
    """
    in_force: list[tuple[int, bytes]] = []
    for at, share, salt in changes:
        if at >= (last_day + 1) * DAY_S:
            break
        if at <= first_day * DAY_S:
            in_force.clear()
        in_force.append((share, salt))
    if not in_force or not any(share for share, _ in in_force):
        return None
    share = next(share for share, _ in reversed(in_force) if share)
    return ConfiguredHoldout(share / ALL_BP, len(set(in_force)))
