"""Counts scores and outcomes of models that other systems serve, as people import them.

An import is a file whose rows come in parts. To the store it is a journal, named by the digest of
its rows, whose batches are the parts: each is stored once, in one transaction, however often and
from wherever it comes.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from features.entity_ids import check_entity_ids
from host.clock import DAY_MS
from monitoring.api.reader_policies import ReaderPolicies
from monitoring.cells.cell import cell_to_proto
from monitoring.cells.counting import CellCounter
from monitoring.cells.decision_rows import sample_decisions
from monitoring.cells.outcome_columns import SKEW_MS
from monitoring.cells.outside_rows import (
    MARK_BYTES,
    VERSION_NAME,
    VERSION_RULE,
    is_outside_version,
    mark_of_prediction,
    outside_batch,
    outside_bins,
    outside_digest8,
    outside_version,
)
from monitoring.cells.version_bins import VersionBins
from monitoring.decisions.answered_rows import (
    ALL_DAYS,
    AnsweredRow,
    AnsweredRows,
    choose_answers,
)
from monitoring.errors import BadImportError, SequenceError
from monitoring.store.monitoring_store import MonitoringStore
from monitoring.store.reader_rows import IMPORTS
from protos import monitoring_pb2 as pb
from registry.client import RegistryClient

Result = TypeVar("Result")

DIGEST_BYTES = 32
ROWS_MAX = 10_000
"""Rows of one part."""
RETAINED_DAYS = 1_826
"""Counts are kept so long, so older rows are refused."""


class OutsideImports:
    """Takes the parts of imports.

    rows    the kept scores, in which outcomes find their scores.
    thread  in which the database is used.
    """

    def __init__(
        self,
        registry: RegistryClient,
        store: MonitoringStore,
        rows: AnsweredRows,
        policies: ReaderPolicies,
        thread: ThreadPoolExecutor,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._store = store
        self._rows = rows
        self._policies = policies
        self._thread = thread
        self._now_s = now_s

    async def import_scores(self, part: pb.ScoresPart) -> pb.ImportReply:
        """Count a part of scores. Raises BadImportError, SequenceError and errors of the store."""
        await self._check_model(part.model)
        await self._policies.wait()
        return await self._run(lambda: self._import_scores(part))

    async def import_outcomes(self, part: pb.OutcomesPart) -> pb.ImportReply:
        """Count a part of outcomes. Raises what `import_scores` does.

        Outcomes of a model that is served here wait for their predictions, as reports by entity do.
        """
        entities = await served_entities(self._registry, part.model)
        if entities is not None:
            return await self._run(lambda: self._import_for_served(part, entities))
        await self._check_model(part.model)
        return await self._run(lambda: self._import_outcomes(part))

    async def _check_model(self, model: str) -> None:
        """Refuse a model that is not written down as one that runs elsewhere."""
        if fault := await scores_fault(self._registry, model):
            raise BadImportError(fault)

    def _import_scores(self, part: pb.ScoresPart) -> pb.ImportReply:
        # What the part states.
        times = _numbers(part.at_unix_ms, "<i8", "times")
        scores = _numbers(part.scores, "<f4", "scores")
        _check_lengths(len(times), scores=len(scores), keys=len(part.keys))
        if part.predictions:
            _check_lengths(len(times), predictions=len(part.predictions))
        self._check_times(times)
        _check_keys(part.keys)
        if part.version and not VERSION_NAME.fullmatch(part.version):
            raise BadImportError(f"version {part.version[:40]!r} is no version; {VERSION_RULE}")
        if not np.isfinite(scores).all():
            raise BadImportError("a score is NaN or infinite; leave such rows out")
        # The bins of a version are those of its first import.
        name = self._journal("scores", part)
        if self._is_stored(name, part.number):
            return pb.ImportReply(known=True, rows=len(times))
        bins = self._bins(part, scores)
        batch = outside_batch(
            bins, part.keys, part.predictions, times, scores, f"{name.journal}\0{part.number}"
        )
        # Counted and kept like rows of a gateway.
        holdout = np.zeros(len(times), dtype=np.bool_)
        counter = CellCounter(lambda *_: bins, lambda _: holdout)
        counter.add(batch)
        decisions = self._policies.current
        sampled = decisions.by_model.get(part.model, decisions.sampled_of_65536)
        self._store.push(
            pb.CellBatch(
                journal=name,
                sequence=part.number,
                cells=[cell_to_proto(*cell) for cell in counter.take_cells().items()],
                decisions=sample_decisions(batch, holdout, sampled),
                newest_unix_ns=int(times.max()) * 1_000_000,
            )
        )
        return pb.ImportReply(rows=len(times))

    def _checked_outcomes(
        self, part: pb.OutcomesPart
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the (R,) times, Unix ms, and values of a part. Raises BadImportError."""
        times = _numbers(part.at_unix_ms, "<i8", "times")
        values = _numbers(part.values, "<f8", "values")
        keys = len(part.predictions) or len(part.keys) // (part.entities or 1)
        _check_lengths(len(times), values=len(values), names=len(part.names), keys=keys)
        self._check_times(times)
        _check_keys(part.keys)
        if not np.isfinite(values).all():
            raise BadImportError("a value is NaN or infinite; leave such rows out")
        return times, values

    def _import_for_served(
        self, part: pb.OutcomesPart, entities: tuple[str, ...]
    ) -> pb.ImportReply:
        """Store outcomes by entity. Monitoring looks for their predictions later."""
        if part.predictions:
            raise BadImportError(
                f"{part.model!r} is served here: an outcome by prediction id is reported to a "
                "gateway (ReportOutcome, docs/calling.md), and an outcome by key is imported"
            )
        # What the part states, as the model's rows are keyed.
        times, values = self._checked_outcomes(part)
        ids = len(part.keys) / len(times)
        if ids != len(entities):
            raise BadImportError(
                f"a row has {ids:g} ids, and rows of {part.model!r} are keyed by "
                f"{', '.join(entities) or 'nothing'}: give one id of each, in this order"
            )
        name = self._journal("outcomes", part)
        if self._is_stored(name, part.number):
            return pb.ImportReply(known=True, rows=len(times))
        # The same events as those of a caller's reports.
        now_ms = int(self._now_s() * 1e3)
        events = [
            pb.OutcomeEvent(
                model=part.model,
                keys=part.keys[row * len(entities) : (row + 1) * len(entities)],
                name=outcome,
                value=value,
                event_unix_ms=at_ms,
                received_unix_ms=now_ms,
            )
            for row, (outcome, value, at_ms) in enumerate(
                zip(part.names, values.tolist(), times.tolist(), strict=True)
            )
        ]
        self._store.push(pb.CellBatch(journal=name, sequence=part.number, outcomes=events))
        return pb.ImportReply(rows=len(events), waiting=len(events))

    def _import_outcomes(self, part: pb.OutcomesPart) -> pb.ImportReply:
        times, values = self._checked_outcomes(part)
        if len(part.predictions or part.keys) != len(times):
            raise BadImportError(f"a row of {part.model!r}, which runs elsewhere, has one key")
        name = self._journal("outcomes", part)
        if self._is_stored(name, part.number):
            return pb.ImportReply(known=True, rows=len(times))
        # Each outcome finds its score.
        found = self._by_prediction(part) if part.predictions else self._by_key(part, times)
        now_ms = int(self._now_s() * 1e3)
        events = []
        for row, score in enumerate(found):
            report = pb.OutcomeEvent(
                model=part.model,
                name=part.names[row],
                value=float(values[row]),
                event_unix_ms=int(times[row]),
                received_unix_ms=now_ms,
            )
            if score is not None:
                report = score.outcome_event(report, outside_digest8(part.model, score.version))
            events.append(report)
        self._store.push(pb.CellBatch(journal=name, sequence=part.number, outcomes=events))
        return pb.ImportReply(rows=len(times), unattributed=sum(item is None for item in found))

    def _bins(self, part: pb.ScoresPart, scores: NDArray[np.float32]) -> VersionBins:
        """Return the bins of the part's version, which its first part sets."""
        label = outside_version(part.version)
        known = self._store.find_version(part.model, outside_digest8(part.model, label))
        bins = known or outside_bins(part.model, label, part.edges)
        if bins.outputs[0].probability and ((scores < 0) | (scores > 1)).any():
            raise BadImportError(
                f"scores of {part.model!r}, version {label}, are probabilities since its first "
                "import, and one is not between 0 and 1; give other scores another version"
            )
        if known is None:
            self._store.save_version(bins)
        return bins

    def _by_prediction(self, part: pb.OutcomesPart) -> list[AnsweredRow | None]:
        """Return for each outcome the score that its prediction names."""
        marks = [mark_of_prediction(part.model, name) for name in part.predictions]
        scores = {
            score.prediction_id[:MARK_BYTES]: score
            for score in self._rows.of_marks(part.model, frozenset(marks))
        }
        return [scores.get(mark) for mark in marks]

    def _by_key(self, part: pb.OutcomesPart, times: NDArray[np.int64]) -> list[AnsweredRow | None]:
        """Return for each outcome the newest score of its key at or before its time."""
        keys = [(key,) for key in part.keys]
        found = self._rows.of_entities(part.model, frozenset(keys), *ALL_DAYS)
        scores = [score for score in found if is_outside_version(score.version)]
        return choose_answers(scores, keys, times, window_ms=RETAINED_DAYS * DAY_MS)

    def _check_times(self, times: NDArray[np.int64]) -> None:
        now_ms = int(self._now_s() * 1e3)
        if len(times) and not (
            now_ms - RETAINED_DAYS * DAY_MS < times.min() and times.max() <= now_ms + SKEW_MS
        ):
            raise BadImportError(
                f"times are between {times.min()} and {times.max()} (Unix milliseconds); none may "
                "be in the future, or older than the five years for which counts are kept"
            )

    def _journal(self, kind: str, part: pb.ScoresPart | pb.OutcomesPart) -> pb.JournalName:
        """Return the name of an import. The same rows of another model are another import."""
        if len(part.content_digest) != DIGEST_BYTES:
            raise BadImportError(f"the digest of an import's rows has {DIGEST_BYTES} bytes")
        content = f"{kind}\0{part.model}\0".encode() + part.content_digest
        return pb.JournalName(gateway=IMPORTS, journal=blake2b(content).hexdigest()[:64])

    def _is_stored(self, name: pb.JournalName, number: int) -> bool:
        """Return whether a part was stored. Raises SequenceError for one that does not follow."""
        stored = self._store.open_reader(name).sequence
        if number > stored + 1 or number < 1:
            raise SequenceError(f"part {number} does not follow part {stored}; begin with part 1")
        return number <= stored

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


async def served_entities(registry: RegistryClient, model: str) -> tuple[str, ...] | None:
    """Return what rows of a model are keyed by, in order; None: it has no version here.

    The production version says so, or the newest one of a model without. Raises RegistryError.
    """
    found = [item for item in await registry.list_models() if item.model == model]
    if not found:
        return None
    labels = [found[0].deployment.production]
    if not labels[0]:
        labels = [item.label for item in await registry.list_versions(model)]
    if not labels:
        return None
    return (await registry.fetch_contract(model, labels[-1])).entities


async def scores_fault(registry: RegistryClient, model: str) -> str:
    """Return why scores of a model cannot be imported; empty: they can. Raises RegistryError."""
    known = [item.model for item in await registry.outside_models()]
    if model in known:
        return ""
    if model in {item.model for item in await registry.list_models()}:
        return (
            f"{model!r} has versions here, and only scores of models elsewhere are imported. "
            "Monitoring counts what gateways score; outcomes by key can be imported"
        )
    return (
        f"{model!r} is no model elsewhere; `turnout models add {model} --elsewhere PLACE` "
        f"writes one down. Known are: {', '.join(known) or 'none'}"
    )


def _numbers(content: bytes, dtype: str, what: str) -> Any:  # noqa: ANN401  an array of this dtype
    """Return a column of numbers."""
    if len(content) % np.dtype(dtype).itemsize:
        raise BadImportError(f"the column of {what} is cut")
    return np.frombuffer(content, dtype)


def _check_lengths(rows: int, **lengths: int) -> None:
    if not 0 < rows <= ROWS_MAX or any(length != rows for length in lengths.values()):
        columns = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise BadImportError(f"{rows} times and {columns}; a part has 1 to {ROWS_MAX} of each")


def _check_keys(keys: Collection[str]) -> None:
    if check_entity_ids(list(keys)) is None:
        raise BadImportError(
            "a key is empty, longer than 128 bytes, or has control characters; leave it out"
        )
