"""Histograms, samples of keys and sums of the evidence: into a kept state, and back."""

import math

import numpy as np
from numpy.typing import NDArray

from protos import rollout_pb2
from rollout.evidence.approved_shift import ApprovedShift
from rollout.evidence.evidence import Evidence
from rollout.evidence.key_sample import SAMPLE_ALL, KeySample
from rollout.evidence.latency import LatencyEvidence
from rollout.evidence.prediction import PredictionEvidence
from rollout.evidence.shadow_pairs import ShadowPairs
from rollout.evidence.validity import MissingFeatures, SplitCount, ValidityChecks
from stats.betting import Wealth
from stats.departure import DepartureState
from stats.detector import Detector

State = rollout_pb2.RolloutState
PREDICTION_ARRAYS = ("paired_counts", "same_bin_count", "watch_counts", "shadow_counts")
NO_COUNTS = np.zeros(0, dtype=np.int64)


def add_shift(state: State, shift: ApprovedShift | None) -> None:
    """Keep the approved shift: the card it came from need not be read again."""
    if shift is not None:
        state.approved_shift.digest, state.approved_shift.bins = shift.digest, len(shift.counts)
        state.approved_shift.counts.extend(shift.counts.reshape(-1).tolist())
        state.approved_shift.flip_rate = shift.flip_rate


def read_shift(state: State) -> ApprovedShift | None:
    """Return it; None: there was none."""
    if not state.approved_shift.bins:
        return None
    counts = np.array(state.approved_shift.counts, dtype=np.int64)
    square = counts.reshape(state.approved_shift.bins, state.approved_shift.bins)
    return ApprovedShift(state.approved_shift.digest, square, state.approved_shift.flip_rate)


def add_keys(state: State, name: str, sample: KeySample) -> None:
    """8 bytes a key, little-endian, sorted; and down to which they were thinned."""
    packed = np.sort(np.fromiter(sample.keys, dtype="<u8", count=len(sample.keys))).tobytes()
    keep = 0 if sample.sampled_of_65536 == SAMPLE_ALL else sample.sampled_of_65536
    state.counted_keys.add(metric=name, keys=packed, sampled_of_65536=keep)


def fill_keys(state: State, name: str, sample: KeySample) -> None:
    """Put them back; a state without them leaves the sample empty."""
    for kept in state.counted_keys:
        if kept.metric == name:
            sample.keys = set(np.frombuffer(kept.keys, dtype="<u8").tolist())
            sample.sampled_of_65536 = kept.sampled_of_65536 or SAMPLE_ALL


def add_evidence(state: State, evidence: Evidence) -> None:
    """Keep everything but the two-arm metrics and the clean keys (checkpoint.py does those)."""
    latency, prediction, doubts = evidence.latency, evidence.prediction, evidence.validity
    _add_counts(state, "latency:rollout", latency.rollout_counts)
    _add_counts(state, "latency:stage", latency.stage_counts)
    names = sorted(latency.edges)
    state.counts.add(name=",".join(["edges", *names]), counts=[latency.edges[n] for n in names])
    for name in PREDICTION_ARRAYS:
        _add_counts(state, f"prediction:{name}", getattr(prediction, name))
    expected = prediction.expectation
    _add_counts(state, "expected", NO_COUNTS if expected is None else expected.counts)
    add_keys(state, "prediction:keys", prediction.candidate_keys)
    add_keys(state, "prediction:others", prediction.standby_keys)
    add_keys(state, "doubts:keys", doubts.counted_keys)
    _add_numbers(state, "prediction:constant", prediction.constant_state.reshape(-1).tolist())
    departed = prediction.departure_state
    _add_numbers(state, "prediction:log_s", departed.log_s.tolist())
    course = [departed.prior_spent, departed.log_e, departed.log_e_max, float(departed.looks)]
    _add_numbers(state, "prediction:course", course)
    counts = [doubts.split_count.canary, doubts.split_count.baseline]
    for arm in (doubts.canary_features, doubts.baseline_features):
        counts += [arm.rows, arm.missing, arm.degraded]
    counts += [
        doubts.ordinary_keys,
        doubts.ordinary_failed,
        doubts.baseline_alarm_second,
        doubts.newest_second,
    ]
    state.counts.add(name="doubts", counts=counts)
    _add_numbers(state, "doubts", [doubts.split_count.share, doubts.detector.log_m])
    _add_shadow(state, evidence.stage.shadow)


def fill_evidence(state: State, evidence: Evidence) -> None:
    """Put it back into fresh evidence of the same policy and shift."""
    counts = {one.name: np.array(one.counts, dtype=np.int64) for one in state.counts}
    numbers = {one.name: list(one.numbers) for one in state.numbers}
    _fill_latency(evidence.latency, counts)
    _fill_prediction(state, evidence.prediction, counts, numbers)
    _fill_validity(state, evidence.validity, counts, numbers)
    _fill_shadow(evidence.stage.shadow, counts, numbers)


def _fill_latency(latency: LatencyEvidence, counts: dict[str, NDArray[np.int64]]) -> None:
    latency.rollout_counts = counts["latency:rollout"].reshape(latency.rollout_counts.shape)
    latency.stage_counts = counts["latency:stage"].reshape(latency.stage_counts.shape)
    named = next(name for name in counts if name.split(",")[0] == "edges")
    latency.edges = dict(zip(named.split(",")[1:], counts[named].tolist(), strict=True))
    latency.edges = {name: latency.edges[name] for name in latency.metrics if name in latency.edges}


def _fill_prediction(
    state: State,
    prediction: PredictionEvidence,
    counts: dict[str, NDArray[np.int64]],
    numbers: dict[str, list[float]],
) -> None:
    for name in PREDICTION_ARRAYS:
        shape = getattr(prediction, name).shape
        setattr(prediction, name, counts[f"prediction:{name}"].reshape(shape))
    fill_keys(state, "prediction:keys", prediction.candidate_keys)
    fill_keys(state, "prediction:others", prediction.standby_keys)
    constant = np.array(numbers["prediction:constant"], dtype=np.float64)
    prediction.constant_state = constant.reshape(prediction.constant_state.shape)
    spent, log_e, log_e_max, looks = numbers["prediction:course"]
    prediction.departure_state = DepartureState(
        log_s=np.array(numbers["prediction:log_s"], dtype=np.float64),
        prior_spent=spent,
        log_e=log_e,
        log_e_max=log_e_max,
        looks=int(looks),
    )
    if len(counts["expected"]):
        prediction.restore_expectation(counts["expected"])


def _fill_validity(
    state: State,
    validity: ValidityChecks,
    counts: dict[str, NDArray[np.int64]],
    numbers: dict[str, list[float]],
) -> None:
    fill_keys(state, "doubts:keys", validity.counted_keys)
    met, other, *rest = counts["doubts"].tolist()
    share, log_m = numbers["doubts"]
    validity.split_count = SplitCount(met, other, share)
    validity.canary_features, validity.baseline_features = (
        MissingFeatures(*rest[:3]),
        MissingFeatures(*rest[3:6]),
    )
    (
        validity.ordinary_keys,
        validity.ordinary_failed,
        validity.baseline_alarm_second,
        validity.newest_second,
    ) = rest[6:]
    validity.detector = Detector(log_m)


def _add_shadow(state: State, shadow: ShadowPairs) -> None:
    wealth = shadow.wealth
    counts = [
        shadow.pairs,
        shadow.flips,
        shadow.faulty,
        shadow.bin_differs,
        shadow.binned_pairs,
        wealth.looks,
    ]
    state.counts.add(name="shadow", counts=counts)
    told = [shadow.absolute_sum, wealth.log_e, wealth.log_e_max, wealth.total, wealth.squares]
    _add_numbers(state, "shadow", told)


def _fill_shadow(
    shadow: ShadowPairs, counts: dict[str, NDArray[np.int64]], numbers: dict[str, list[float]]
) -> None:
    pairs, flips, faulty, moved, binned, looks = counts["shadow"].tolist()
    absolute, log_e, log_e_max, total, squares = numbers["shadow"]
    shadow.pairs, shadow.flips, shadow.faulty = pairs, flips, faulty
    shadow.bin_differs, shadow.binned_pairs, shadow.absolute_sum = moved, binned, absolute
    shadow.wealth = Wealth(log_e, log_e_max, looks, total, squares)


def _add_counts(state: State, name: str, counts: NDArray[np.int64]) -> None:
    state.counts.add(name=name, counts=counts.reshape(-1).tolist())


def _add_numbers(state: State, name: str, numbers: list[float]) -> None:
    assert not any(math.isnan(number) for number in numbers)
    state.numbers.add(name=name, numbers=numbers)
