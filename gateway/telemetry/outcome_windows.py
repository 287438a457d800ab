"""Outcomes on their way to those who judge: by version and role, in the second they came."""

from dataclasses import dataclass, field

from gateway.models.routes import LoadedVersion, Routes
from gateway.telemetry.windows import NS_PER_SECOND
from journal.prediction_id import PredictionId
from protos import window_pb2

WindowKey = tuple[int, str, int, str]
"""(second, model, the predictions' revision, version)."""


@dataclass(slots=True)
class _Reports:
    """What was said of one role's predictions under one name."""

    keys: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


class OutcomeWindows:
    """The open windows of one worker's outcomes. Touched by the event loop's thread only.

    They travel as all windows do: numbered, kept until acknowledged, sent again after a break.
    """

    def __init__(self) -> None:
        self._open: dict[WindowKey, window_pb2.Window] = {}
        self._reports: dict[WindowKey, dict[tuple[int, str], _Reports]] = {}

    def record_outcome(
        self, routes: Routes, prediction: PredictionId, name: str, value: float, unix_ns: int
    ) -> None:
        """Note a report that is on disk, while a rollout compares the version that answered.

        Not of the control group, and not of a version that no arm of this moment has: the rollout
        that drew its key is over.
        """
        version = _answered_by(routes, prediction)
        if prediction.holdout or not routes.deployment.rollout_id or version is None:
            return
        cut = (unix_ns // NS_PER_SECOND, routes.model, prediction.revision, version.label)
        if cut not in self._open:
            self._open[cut] = window_pb2.Window(
                model=routes.model,
                version=version.label,
                version_digest=version.digest8,
                revision=prediction.revision,
                second=cut[0],
                start_unix_ns=unix_ns,
            )
            self._reports[cut] = {}
        reports = self._reports[cut].setdefault((prediction.role, name), _Reports())
        reports.keys.append(prediction.key_hash)
        reports.values.append(value)

    def close_windows(self, unix_ns: int, *, everything: bool = False) -> list[window_pb2.Window]:
        """Close the windows of seconds that are over (or all of them) and return them."""
        over = [cut for cut in self._open if everything or cut[0] < unix_ns // NS_PER_SECOND]
        return [self._finished(cut, unix_ns) for cut in over]

    def _finished(self, cut: WindowKey, unix_ns: int) -> window_pb2.Window:
        message = self._open.pop(cut)
        message.end_unix_ns = unix_ns
        for (role, name), reports in sorted(self._reports.pop(cut).items()):
            message.outcomes.add(role=role, name=name, key_hash=reports.keys, value=reports.values)
        return message


def _answered_by(routes: Routes, prediction: PredictionId) -> LoadedVersion | None:
    for participant in (routes.production, routes.canary, routes.standby):
        if participant is not None and participant.version.id[:8] == prediction.version:
            return participant.version
    return None
