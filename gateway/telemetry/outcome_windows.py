"""Windows of reported outcomes, by version and role, in the second in which the reports came."""

from dataclasses import dataclass, field

from gateway.models.routes import LoadedVersion, Routes
from host.clock import NS_PER_SECOND
from journal.prediction_id import PredictionId
from protos import window_pb2
from protos.journal_pb2 import OutcomeRecord

WindowKey = tuple[int, str, int, str]
"""(second, model, revision of the predictions, version)."""


@dataclass(slots=True)
class _Reports:
    """The values that one caller reported under one name for predictions of one role."""

    keys: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


class OutcomeWindows:
    """The open outcome windows of one worker. Touched by the event loop's thread only.

    They are sent with the other windows (gateway.telemetry.window_stream).
    """

    def __init__(self) -> None:
        self._open: dict[WindowKey, window_pb2.Window] = {}
        self._reports: dict[WindowKey, dict[tuple[int, str, str], _Reports]] = {}
        """By role of the prediction, name of the outcome, and caller."""

    def record_outcome(
        self, routes: Routes, prediction: PredictionId, record: OutcomeRecord, unix_ns: int
    ) -> None:
        """Add one report that is on disk, if a rollout compares the version that answered.

        Left out are predictions of the holdout, and of versions that no arm has now: the rollout
        that assigned their keys is over.
        """
        version = _answering_version(routes, prediction)
        if prediction.holdout or not routes.deployment.rollout_id or version is None:
            return
        key = (unix_ns // NS_PER_SECOND, routes.model, prediction.revision, version.label)
        if key not in self._open:
            self._open[key] = window_pb2.Window(
                model=routes.model,
                version=version.label,
                version_digest=version.digest8,
                revision=prediction.revision,
                second=key[0],
                start_unix_ns=unix_ns,
            )
            self._reports[key] = {}
        reports = self._reports[key].setdefault(
            (prediction.role, record.name, record.caller), _Reports()
        )
        reports.keys.append(prediction.key_hash)
        reports.values.append(record.value)

    def close_windows(self, unix_ns: int, *, everything: bool = False) -> list[window_pb2.Window]:
        """Close the windows whose second is over, or all with *everything*, and return them."""
        second = unix_ns // NS_PER_SECOND
        over = [key for key in self._open if everything or key[0] < second]
        return [self._finished(key, unix_ns) for key in over]

    def _finished(self, key: WindowKey, unix_ns: int) -> window_pb2.Window:
        message = self._open.pop(key)
        message.end_unix_ns = unix_ns
        for (role, name, caller), reports in sorted(self._reports.pop(key).items()):
            message.outcomes.add(
                role=role, name=name, key_hash=reports.keys, value=reports.values, caller=caller
            )
        return message


def _answering_version(routes: Routes, prediction: PredictionId) -> LoadedVersion | None:
    for participant in (routes.production, routes.canary, routes.standby):
        if participant is not None and participant.version.id[:8] == prediction.version:
            return participant.version
    return None
