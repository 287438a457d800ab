"""Checks windows where they enter: what is malformed is dropped and counted, and raises nowhere.

Pure. A gateway's token proves who sends a window, and these checks say that it can be counted.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from protos import predict_pb2, window_pb2
from rollout.evidence.inbox import NS
from stats.latency import BINS as LATENCY_BINS
from stats.score_scale import BINS_MAX, MAGNITUDE_MAX, SPREAD_MIN, TASKS

WINDOWS_PER_BATCH_MAX = 4_096
"""Windows and guards of one message. Thirty models with five arms each close 150 a second."""
RECORDS_PER_WINDOW_MAX = 1_000_000
"""Keys of one window, over all metrics: two for each call of a busy worker's second."""
COUNT_MAX = 1_000_000_000
"""Any count of one second, such as calls, rows or the calls of a batch."""
SUM_MAX = 1e100
"""Any sum of differences of scores. NaN and infinity are beyond it too."""
SCORE_BINS = 64
WINDOW_AGE_S_MAX = 60
"""A window's second lies at most so far before the moment at which its batch was sent ..."""
WINDOW_AHEAD_S_MAX = 2
"""... and at most so far behind it."""
REVISIONS_AHEAD_MAX = 10
"""A gateway may know a deployment a moment before the controller does."""
REASON_CHARS_MAX = 1_000
OUTCOME_NAME_CHARS_MAX = 128
OUTPUT_NAME_CHARS_MAX = 256


ARMS = frozenset(window_pb2.Arm.values()) - {window_pb2.ARM_UNSPECIFIED}
METRICS = frozenset(window_pb2.Metric.values()) - {window_pb2.METRIC_UNSPECIFIED}
GUARDS = frozenset(window_pb2.HardGuard.Kind.values()) - {window_pb2.HardGuard.UNSPECIFIED}
ROLES = frozenset(predict_pb2.Role.values())
BINS_BY_METRIC = {
    window_pb2.METRIC_SCORE: SCORE_BINS,
    window_pb2.METRIC_LATENCY: LATENCY_BINS,
}
"""Metrics whose records need a bin each. Those of the others tell faults apart, for people."""


@dataclass(slots=True)
class DeployedVersions:
    """What the controller knows of one model's deployments."""

    revision: int
    """Newest revision that the controller knows."""
    versions: set[str]
    """Labels of all versions that a deployment named since this controller leads."""


Deployed = Mapping[str, DeployedVersions]
"""Model -> its deployed versions."""


class _MalformedError(Exception):
    """A window or guard that cannot be counted. The text is a short reason, the same for alike."""


def drop_malformed(batch: window_pb2.WindowBatch, deployed: Deployed) -> Counter[tuple[str, str]]:
    """Take malformed windows and guards out of *batch*.

    Return how many there were, by (model, reason). The model is empty if it is not deployed, so
    that invented names take no memory. Reasons are of a small fixed set.
    """
    dropped: Counter[tuple[str, str]] = Counter()
    windows = _without_malformed(batch.windows, _check_window, batch, deployed, dropped)
    guards = _without_malformed(batch.guards, _check_guard, batch, deployed, dropped)
    # Most batches have nothing malformed, and copying them would cost.
    if dropped:
        del batch.windows[:], batch.guards[:]
        batch.windows.extend(windows)
        batch.guards.extend(guards)
    return dropped


def drop_all_windows(batch: window_pb2.WindowBatch, deployed: Deployed) -> Counter[tuple[str, str]]:
    """Take all windows out of *batch*, because its worker is refused; return them as dropped.

    Hard guards stay, because what they say needs no clock. Their times are taken out.
    """
    dropped = Counter(
        (window.model if window.model in deployed else "", "worker is refused")
        for window in batch.windows
    )
    del batch.windows[:]
    for guard in batch.guards:
        guard.at_unix_ns = guard.first_bad_unix_ns = 0
    return dropped


def forget_clock(batch: window_pb2.WindowBatch) -> None:
    """Take the times of *batch* out, so that nothing goes by them."""
    batch.sent_unix_ns = batch.clock_unix_ns = 0


Item = TypeVar("Item", window_pb2.Window, window_pb2.HardGuard)


def _without_malformed(
    items: Sequence[Item],
    check: Callable[[Item, int, Deployed], None],
    batch: window_pb2.WindowBatch,
    deployed: Deployed,
    dropped: Counter[tuple[str, str]],
) -> list[Item]:
    right = []
    for item in items[:WINDOWS_PER_BATCH_MAX]:
        try:
            check(item, batch.sent_unix_ns, deployed)
        except _MalformedError as error:
            dropped[item.model if item.model in deployed else "", str(error)] += 1
        else:
            right.append(item)
    if len(items) > WINDOWS_PER_BATCH_MAX:
        dropped["", "more than a message may have"] += len(items) - WINDOWS_PER_BATCH_MAX
    return right


def _check_guard(guard: window_pb2.HardGuard, sent_unix_ns: int, deployed: Deployed) -> None:
    _check_deployed(guard, deployed)
    newest_ns = sent_unix_ns + WINDOW_AHEAD_S_MAX * NS
    _require("time", 0 <= guard.at_unix_ns <= newest_ns)
    _require("time", 0 <= guard.first_bad_unix_ns <= newest_ns)
    _require("kind of guard", guard.kind in GUARDS)
    # A guard must not be lost because its reason is long.
    guard.reason = guard.reason[:REASON_CHARS_MAX]


def _check_window(window: window_pb2.Window, sent_unix_ns: int, deployed: Deployed) -> None:
    _check_deployed(window, deployed)
    # Times.
    age_s = sent_unix_ns // NS - window.second
    _require("second", -WINDOW_AHEAD_S_MAX <= age_s <= WINDOW_AGE_S_MAX)
    if window.first_bad_unix_ns or window.last_bad_unix_ns:
        for bad_ns in (window.first_bad_unix_ns, window.last_bad_unix_ns):
            _require("time", bad_ns == 0 or abs(sent_unix_ns - bad_ns) <= WINDOW_AGE_S_MAX * NS)
    # Counts.
    counts = [value for _, value in (*window.calls.ListFields(), *window.features.ListFields())]
    _require("count", max((window.rows, *counts)) <= COUNT_MAX)
    if window.HasField("latency"):
        _check_histogram(window.latency.index, window.latency.count, LATENCY_BINS)
    if window.HasField("scores"):
        _check_histogram(window.scores.index, window.scores.count, SCORE_BINS)
    if window.HasField("pairs"):
        _check_pairs(window.pairs)
    _check_output_bins(window.output_bins)
    # Evidence by key, or outcomes, which have a window without an arm.
    _require("sample", window.sampled_of_65536 <= 65_536)
    keys = sum(len(records.key_hash) for records in window.records)
    keys += sum(len(reports.key_hash) for reports in window.outcomes)
    _require("number of records", keys <= RECORDS_PER_WINDOW_MAX)
    _require("arm", window.arm in ARMS or (window.arm == 0 and not window.records))
    for records in window.records:
        _check_records(records)
    for reports in window.outcomes:
        _require("outcome", len(reports.name) <= OUTCOME_NAME_CHARS_MAX)
        _require("outcome", reports.role in ROLES)
        _require("length of a column", len(reports.value) == len(reports.key_hash))


def _check_deployed(item: window_pb2.Window | window_pb2.HardGuard, deployed: Deployed) -> None:
    known = deployed.get(item.model)
    if known is None:
        raise _MalformedError("model not deployed")
    _require("version not deployed", item.version in known.versions)
    _require("revision", 0 < item.revision <= known.revision + REVISIONS_AHEAD_MAX)


def _check_records(records: window_pb2.KeyRecords) -> None:
    _require("metric", records.metric in METRICS)
    keys, bins = len(records.key_hash), BINS_BY_METRIC.get(records.metric)
    # Production's bins may be missing for some keys. Other columns have one entry for each key.
    _require("length of a column", len(records.production_bin) <= keys)
    lengths = {len(records.batch_calls)} - {0}
    if bins is not None or records.bin:
        lengths.add(len(records.bin))
    _require("length of a column", lengths <= {keys})
    _require_below("bin", records.bin, bins or SCORE_BINS)
    _require_below("bin", records.production_bin, SCORE_BINS)
    _require_below("calls of a batch", records.batch_calls, COUNT_MAX)
    _require("calls of a batch", 0 not in records.batch_calls[:])


def _check_pairs(pairs: window_pb2.PairCounts) -> None:
    _require("count", pairs.pairs <= COUNT_MAX and pairs.faulty <= COUNT_MAX)
    _require("count", pairs.flips <= pairs.pairs)
    sums = (pairs.absolute_sum, pairs.square_sum)
    _require("sum", all(0.0 <= total <= SUM_MAX for total in sums))
    # One difference for each output.
    _require("number of outputs", len(pairs.outputs) <= BINS_MAX)
    _require("task", pairs.task in ("", *TASKS))
    for output in pairs.outputs:
        _require("output", 0 < len(output.name) <= OUTPUT_NAME_CHARS_MAX)
        _require("sum", 0.0 <= output.absolute_sum <= SUM_MAX)
        _require("spread", SPREAD_MIN <= output.spread <= MAGNITUDE_MAX)
    # Histograms.
    _check_histogram(pairs.production_bins.index, pairs.production_bins.count, SCORE_BINS)
    _check_histogram(pairs.joint_index, pairs.joint_count, SCORE_BINS * SCORE_BINS)


def _check_output_bins(output_bins: Sequence[int]) -> None:
    # Nearly every model has one output, and then there are none.
    if output_bins:
        firsts = output_bins[:]
        _require("bins of outputs", firsts[0] == 0 and firsts[-1] < BINS_MAX)
        _require("bins of outputs", all(a < b for a, b in pairwise(firsts)))


def _check_histogram(index: Sequence[int], count: Sequence[int], bins: int) -> None:
    _require("length of a column", len(index) == len(count) <= bins)
    _require_below("bin", index, bins)
    _require_below("count", count, COUNT_MAX + 1)


def _require_below(what: str, column: Sequence[int], end: int) -> None:
    # A list is twice as fast to search as protobuf's column, and most columns are empty.
    if column:
        _require(what, max(column[:]) < end)


def _require(what: str, right: bool) -> None:
    if not right:
        raise _MalformedError(what)


def add_deployed(
    deployed: dict[str, DeployedVersions], model: str, revision: int, versions: AbstractSet[str]
) -> None:
    """Note a deployment of *model* that names *versions*."""
    known = deployed.setdefault(model, DeployedVersions(revision, set()))
    known.revision = max(known.revision, revision)
    known.versions |= versions
