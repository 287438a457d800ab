"""Histograms, samples of keys and sums of the evidence: into a kept state, and back."""

import math

import numpy as np
from numpy.typing import NDArray

from protos import rollout_pb2
from rollout.evidence.approved_shift import Shift
from rollout.evidence.evidence import Evidence
from rollout.evidence.key_sample import WHOLE_KEEP, KeySample
from rollout.evidence.latency import LatencyEvidence
from rollout.evidence.prediction import PredictionEvidence
from rollout.evidence.shadow_pairs import ShadowPairs
from rollout.evidence.validity import Doubts, Lacking, Met
from stats.betting import Wealth
from stats.departure import DepartureState
from stats.detector import Detector

State = rollout_pb2.RolloutState
PREDICTED = ("paired", "agreed", "watched", "live")
NOTHING = np.zeros(0, dtype=np.int64)


def add_shift(state: State, shift: Shift | None) -> None:
    """Keep the approved shift: the card it came from need not be read again."""
    if shift is not None:
        state.shift.digest, state.shift.bins = shift.digest, len(shift.counts)
        state.shift.counts.extend(shift.counts.reshape(-1).tolist())
        state.shift.flip_rate = shift.flip_rate


def shift_of(state: State) -> Shift | None:
    """Return it; None: there was none."""
    if not state.shift.bins:
        return None
    counts = np.array(state.shift.counts, dtype=np.int64)
    square = counts.reshape(state.shift.bins, state.shift.bins)
    return Shift(state.shift.digest, square, state.shift.flip_rate)


def add_keys(state: State, name: str, sample: KeySample) -> None:
    """8 bytes a key, little-endian, sorted; and down to which they were thinned."""
    packed = np.sort(np.fromiter(sample.keys, dtype="<u8", count=len(sample.keys))).tobytes()
    keep = 0 if sample.keep == WHOLE_KEEP else sample.keep
    state.seen.add(metric=name, keys=packed, keep_of_65536=keep)


def fill_keys(state: State, name: str, sample: KeySample) -> None:
    """Put them back; a state without them leaves the sample empty."""
    for kept in state.seen:
        if kept.metric == name:
            sample.keys = set(np.frombuffer(kept.keys, dtype="<u8").tolist())
            sample.keep = kept.keep_of_65536 or WHOLE_KEEP


def add_evidence(state: State, evidence: Evidence) -> None:
    """Keep everything but the two-arm metrics and the clean keys (checkpoint.py does those)."""
    latency, prediction, doubts = evidence.latency, evidence.prediction, evidence.doubts
    _add_counts(state, "latency:rollout", latency.rollout)
    _add_counts(state, "latency:stage", latency.stage)
    names = sorted(latency.edges)
    state.counts.add(name=",".join(["edges", *names]), counts=[latency.edges[n] for n in names])
    for name in PREDICTED:
        _add_counts(state, f"prediction:{name}", getattr(prediction, name))
    expected = prediction.expected
    _add_counts(state, "expected", NOTHING if expected is None else expected.counts)
    add_keys(state, "prediction:keys", prediction.sample)
    add_keys(state, "prediction:others", prediction.others)
    add_keys(state, "doubts:keys", doubts.sample)
    _add_numbers(state, "prediction:constant", prediction.constant.reshape(-1).tolist())
    departed = prediction.state
    _add_numbers(state, "prediction:log_s", departed.log_s.tolist())
    course = [departed.prior_spent, departed.log_e, departed.log_e_max, float(departed.looks)]
    _add_numbers(state, "prediction:course", course)
    counts = [doubts.met.canary, doubts.met.baseline]
    for arm in (doubts.canary, doubts.baseline):
        counts += [arm.rows, arm.missing, arm.degraded]
    counts += [doubts.past_keys, doubts.past_failed, doubts.degraded_second, doubts.second]
    state.counts.add(name="doubts", counts=counts)
    _add_numbers(state, "doubts", [doubts.met.share, doubts.detector.log_m])
    _add_shadow(state, evidence.stage.shadow)


def fill_evidence(state: State, evidence: Evidence) -> None:
    """Put it back into fresh evidence of the same policy and shift."""
    counts = {one.name: np.array(one.counts, dtype=np.int64) for one in state.counts}
    numbers = {one.name: list(one.numbers) for one in state.numbers}
    _fill_latency(evidence.latency, counts)
    _fill_prediction(state, evidence.prediction, counts, numbers)
    _fill_doubts(state, evidence.doubts, counts, numbers)
    _fill_shadow(evidence.stage.shadow, counts, numbers)


def _fill_latency(latency: LatencyEvidence, counts: dict[str, NDArray[np.int64]]) -> None:
    latency.rollout = counts["latency:rollout"].reshape(latency.rollout.shape)
    latency.stage = counts["latency:stage"].reshape(latency.stage.shape)
    named = next(name for name in counts if name.split(",")[0] == "edges")
    latency.edges = dict(zip(named.split(",")[1:], counts[named].tolist(), strict=True))
    latency.edges = {name: latency.edges[name] for name in latency.metrics if name in latency.edges}


def _fill_prediction(
    state: State,
    prediction: PredictionEvidence,
    counts: dict[str, NDArray[np.int64]],
    numbers: dict[str, list[float]],
) -> None:
    for name in PREDICTED:
        shape = getattr(prediction, name).shape
        setattr(prediction, name, counts[f"prediction:{name}"].reshape(shape))
    fill_keys(state, "prediction:keys", prediction.sample)
    fill_keys(state, "prediction:others", prediction.others)
    constant = np.array(numbers["prediction:constant"], dtype=np.float64)
    prediction.constant = constant.reshape(prediction.constant.shape)
    spent, log_e, log_e_max, looks = numbers["prediction:course"]
    prediction.state = DepartureState(
        log_s=np.array(numbers["prediction:log_s"], dtype=np.float64),
        prior_spent=spent,
        log_e=log_e,
        log_e_max=log_e_max,
        looks=int(looks),
    )
    if len(counts["expected"]):
        prediction.expect(counts["expected"])


def _fill_doubts(
    state: State,
    doubts: Doubts,
    counts: dict[str, NDArray[np.int64]],
    numbers: dict[str, list[float]],
) -> None:
    fill_keys(state, "doubts:keys", doubts.sample)
    met, other, *rest = counts["doubts"].tolist()
    share, log_m = numbers["doubts"]
    doubts.met = Met(met, other, share)
    doubts.canary, doubts.baseline = Lacking(*rest[:3]), Lacking(*rest[3:6])
    doubts.past_keys, doubts.past_failed, doubts.degraded_second, doubts.second = rest[6:]
    doubts.detector = Detector(log_m)


def _add_shadow(state: State, shadow: ShadowPairs) -> None:
    wealth = shadow.wealth
    counts = [shadow.pairs, shadow.flips, shadow.faulty, shadow.moved, shadow.binned, wealth.looks]
    state.counts.add(name="shadow", counts=counts)
    told = [shadow.absolute_sum, wealth.log_e, wealth.log_e_max, wealth.total, wealth.squares]
    _add_numbers(state, "shadow", told)


def _fill_shadow(
    shadow: ShadowPairs, counts: dict[str, NDArray[np.int64]], numbers: dict[str, list[float]]
) -> None:
    pairs, flips, faulty, moved, binned, looks = counts["shadow"].tolist()
    absolute, log_e, log_e_max, total, squares = numbers["shadow"]
    shadow.pairs, shadow.flips, shadow.faulty = pairs, flips, faulty
    shadow.moved, shadow.binned, shadow.absolute_sum = moved, binned, absolute
    shadow.wealth = Wealth(log_e, log_e_max, looks, total, squares)


def _add_counts(state: State, name: str, counts: NDArray[np.int64]) -> None:
    state.counts.add(name=name, counts=counts.reshape(-1).tolist())


def _add_numbers(state: State, name: str, numbers: list[float]) -> None:
    assert not any(math.isnan(number) for number in numbers)
    state.numbers.add(name=name, numbers=numbers)
