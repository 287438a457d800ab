"""Gives reported outcomes the segments of their predictions, where the scored rows are kept."""

import logging
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from host.clock import DAY_MS
from journal.prediction_id import hash_model_name
from monitoring.cells.segments import SegmentRules
from monitoring.cells.version_bins import VersionBins
from monitoring.decisions.scored_inputs import ScoredRows
from monitoring.errors import UnreadableDecisionsError
from protos import monitoring_pb2 as pb

log = logging.getLogger(__name__)

FindBins = Callable[[str, int], VersionBins | None]


class OutcomeSegments:
    """Finds the segments of outcomes.

    rows       where scored rows are kept.
    find_bins  (model, digest8) -> the bins of the version, if they are known.
    """

    def __init__(self, rows: ScoredRows, find_bins: FindBins) -> None:
        self._rows = rows
        self._find_bins = find_bins

    def fill(self, batch: pb.CellBatch, rules: SegmentRules) -> None:
        """Write the segments of each outcome into it, and take its prediction id away.

        An outcome whose prediction is not kept has none, and counts among all rows only.
        """
        models = {hash_model_name(model): model for model in rules.models}
        events = defaultdict(list)
        for event in batch.outcomes:
            event.ClearField("segments")
            if event.prediction_id and event.model_hash in models:
                events[models[event.model_hash], event.version_digest].append(event)
        # One search for each version.
        for (model, digest8), of_version in events.items():
            bins = self._find_bins(model, digest8)
            if bins is not None:
                self._fill_version(batch, model, bins, of_version, rules)
        for event in batch.outcomes:
            event.ClearField("prediction_id")

    def _fill_version(
        self,
        batch: pb.CellBatch,
        model: str,
        bins: VersionBins,
        events: list[pb.OutcomeEvent],
        rules: SegmentRules,
    ) -> None:
        days = {event.predicted_unix_ms // DAY_MS for event in events}
        ids = {event.prediction_id for event in events}
        try:
            found = self._rows.find(model, days, ids, batch.decisions)
        except UnreadableDecisionsError as error:
            log.warning("outcomes of %r are counted without segments: %s", model, error)
            return
        # Rows of another shape are of another version, whose columns have other names.
        known = [
            event
            for event in events
            if len(found.get((event.prediction_id, event.row), ())) == len(bins.features) > 0
        ]
        if not known:
            return
        vectors = np.stack([found[event.prediction_id, event.row] for event in known])
        segments = rules(bins, vectors)
        if segments is None:
            return
        for event, code in zip(known, segments.of_row.tolist(), strict=True):
            event.segments.extend(segments.names[code])
