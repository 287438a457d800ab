"""Outcomes on their way to those who judge: by version and role, in the second they came."""

from dataclasses import dataclass, field

from gateway.models.routes import LoadedVersion, Routes
from gateway.telemetry.windows import NS
from journal.prediction_id import PredictionId
from protos import window_pb2

Cut = tuple[int, str, int, str]
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
        self._open: dict[Cut, window_pb2.Window] = {}
        self._reports: dict[Cut, dict[tuple[int, str], _Reports]] = {}

    def tell(
        self, routes: Routes, proved: PredictionId, name: str, value: float, unix_ns: int
    ) -> None:
        """Note a report that is on disk, while a rollout compares the version that answered.

        Not of the control group, and not of a version that no arm of this moment has: the rollout
        that drew its key is over.
        """
        version = _answered_by(routes, proved)
        if proved.holdout or not routes.deployment.rollout_id or version is None:
            return
        cut = (unix_ns // NS, routes.model, proved.revision, version.label)
        if cut not in self._open:
            self._open[cut] = window_pb2.Window(
                model=routes.model,
                version=version.label,
                version_digest=version.digest8,
                revision=proved.revision,
                second=cut[0],
                start_unix_ns=unix_ns,
            )
            self._reports[cut] = {}
        reports = self._reports[cut].setdefault((proved.role, name), _Reports())
        reports.keys.append(proved.key_hash)
        reports.values.append(value)

    def close(self, unix_ns: int, *, everything: bool = False) -> list[window_pb2.Window]:
        """Close the windows of seconds that are over (or all of them) and return them."""
        over = [cut for cut in self._open if everything or cut[0] < unix_ns // NS]
        return [self._finished(cut, unix_ns) for cut in over]

    def _finished(self, cut: Cut, unix_ns: int) -> window_pb2.Window:
        message = self._open.pop(cut)
        message.end_unix_ns = unix_ns
        for (role, name), reports in sorted(self._reports.pop(cut).items()):
            message.outcomes.add(role=role, name=name, key_hash=reports.keys, value=reports.values)
        return message


def _answered_by(routes: Routes, proved: PredictionId) -> LoadedVersion | None:
    for participant in (routes.production, routes.canary, routes.standby):
        if participant is not None and participant.version.id[:8] == proved.version:
            return participant.version
    return None
