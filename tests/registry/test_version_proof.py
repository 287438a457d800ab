"""Tests of the check that a score belongs to its row."""

import io
import json
import time
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from features.canonical import sha256_hex
from registry import bundle, scoring, version_proof
from registry.golden import ScoreTolerance, score_size
from registry.types import ScoringError, VersionRefusedError
from tests.neighbour_models import NEIGHBOURS, Graph, moved_in_company, neighbour_files
from tests.tiny_models import linear_weights, tiny_contract, tiny_files


def verified(files: dict[str, bytes]) -> bundle.Bundle:
    """Seal and verify *files*."""
    sealed = bundle.seal_files(files, model="churn", author="ann", created_unix_ms=1)
    return bundle.verify_bundle(sealed, trusted_key=None)


def prove(files: dict[str, bytes]) -> version_proof.ProvenVersion:
    """Prove *files* in this process."""
    return version_proof.prove_bundle(verified(files), lambda **_: None)


def golden(inputs: NDArray[np.float32], outputs: NDArray[np.float32]) -> bytes:
    """Return golden.npz of these rows."""
    stream = io.BytesIO()
    np.savez(stream, inputs=inputs, outputs=outputs)
    return stream.getvalue()


@pytest.mark.parametrize("graph", NEIGHBOURS, ids=lambda graph: graph.__name__)
def test_proof_refuses_a_score_that_depends_on_neighbours_or_earlier_calls(graph: Graph) -> None:
    """Each passes its golden test, by the file's own claim; the message names row and batch."""
    files = neighbour_files(graph)
    scoring.golden_test(verified(files), scoring.load_session(verified(files)))

    with pytest.raises(
        VersionRefusedError, match=r"golden row \d+ .* alone and .* the difference is .* own row"
    ):
        prove(files)


@pytest.mark.parametrize(
    "files",
    [
        tiny_files(),
        tiny_files(fault_when=5.0),
        tiny_files(nan_when=5.0),
        tiny_files(golden_rows=1_000),
        tiny_files(weights=linear_weights(3) * np.float32(1e5), golden_rows=8),
        tiny_files(
            contract=tiny_contract(40, ("a", "b", "c")),
            weights=linear_weights(40, 3) / 100,
        ),
    ],
    ids=["linear", "raises", "nan", "many_rows", "large_scores", "three_outputs"],
)
def test_proof_passes_a_version_whose_rows_are_their_own(files: dict[str, bytes]) -> None:
    """Also one that raises or scores NaN on edge rows, and one whose scores are large."""
    proven = prove(files)
    assert proven.run_us > 0
    assert proven.load_ms > 0


def stating(files: dict[str, bytes], tolerance: object) -> dict[str, bytes]:
    """Return *files* with a card that states a tolerance."""
    card = {**json.loads(files["card.json"]), "score_tolerance": tolerance}
    return {**files, "card.json": json.dumps(card).encode()}


@pytest.mark.parametrize(
    ("moved", "factor", "stated", "passes"),
    [
        (5e-5, 1, None, False),
        (5e-5, 1, {"absolute": 1e-4, "relative": 0}, True),
        (5e-6, 1, None, True),
        (5e-6, 1, {"absolute": 1e-6, "relative": 0.0}, False),
        (0.01, 1e3, None, False),
        (0.01, 1e3, {"absolute": 1e-4, "relative": 0}, False),
        (0.008, 1e3, {"absolute": 0, "relative": 1e-4}, True),
        (0.01, 1e3, {"absolute": 0.02, "relative": 0}, True),
        (0, 1, {"absolute": 0, "relative": 0}, True),
    ],
)
def test_proof_allows_what_the_version_states(
    moved: float, factor: float, stated: dict[str, float] | None, passes: bool
) -> None:
    """A score that moves in company passes up to the stated tolerance, and else as before."""
    files = neighbour_files(moved_in_company(moved, factor))
    if stated is not None:
        files = stating(files, stated)
    if passes:
        assert prove(files).run_us > 0
        return
    with pytest.raises(VersionRefusedError, match=r"alone and .* the difference is"):
        prove(files)


@pytest.mark.parametrize(
    "stated",
    [
        {"absolute": 1.1e-4, "relative": 0},
        {"absolute": 0, "relative": 1},
        {"absolute": -1e-9, "relative": 0},
        {"absolute": True, "relative": 0},
        {"absolute": "1e-5", "relative": 0},
        {"absolute": 1e-5},
        {"absolute": 1e-5, "relative": 0, "more": 0},
        1e-5,
        None,
    ],
)
def test_version_that_states_no_tolerance_within_the_bounds_is_refused(stated: object) -> None:
    """The message has the form and the bound."""
    with pytest.raises(VersionRefusedError, match=r"score_tolerance .* from 0 to 0\.0001"):
        verified(stating(tiny_files(), stated))


def test_absolute_tolerance_is_bounded_by_the_size_of_golden_scores() -> None:
    """A tenth is allowed for amounts around 1,000, where 1e-4 is for probabilities."""
    amounts = neighbour_files(moved_in_company(0, 1e3))
    size = score_size(verified(amounts).golden_outputs)
    assert size > 100
    assert verified(stating(amounts, {"absolute": 1e-4 * size, "relative": 0})).tolerance
    with pytest.raises(VersionRefusedError, match="score_tolerance"):
        verified(stating(amounts, {"absolute": 1.1e-4 * size, "relative": 0}))


def test_version_that_states_nothing_has_the_earlier_tolerances() -> None:
    """No file of an earlier version changes; a stated tolerance is part of the version's id."""
    without, stated = verified(tiny_files()), {"absolute": 0, "relative": 0}

    assert without.tolerance is None
    assert verified(stating(tiny_files(), stated)).tolerance == ScoreTolerance(0.0, 0.0)
    assert verified(stating(tiny_files(), stated)).digest != without.digest


def test_golden_rows_meet_the_stated_tolerance() -> None:
    """A certified score that is 5e-5 off passes under 1e-4, and not under what holds without."""
    tiny = verified(tiny_files())
    off = tiny.golden_outputs + np.float32(5e-5)
    for tolerance, passes in (
        (None, False),
        (ScoreTolerance(1e-4, 0.0), True),
        (ScoreTolerance(0.0, 1e-5), False),
    ):
        stated = replace(tiny, golden_outputs=off, tolerance=tolerance)
        if passes:
            assert scoring.golden_test(stated, scoring.load_session(tiny)) == pytest.approx(
                5e-5, rel=0.01
            )
        else:
            with pytest.raises(VersionRefusedError, match=r"golden row \d+ of 32"):
                scoring.golden_test(stated, scoring.load_session(tiny))


class SlowScorer:
    """A session whose runs take a while, whatever their size."""

    def __init__(self, session: scoring.Session, seconds: float) -> None:
        self._session = session
        self._seconds = seconds
        self.runs = 0

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sleep, then score."""
        self.runs += 1
        time.sleep(self._seconds)
        return self._session.run(matrix)


def test_proof_of_a_slow_version_takes_few_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of 1 s fit 20 s of CPU; here both times are a hundredth."""
    monkeypatch.setattr(version_proof, "SINGLE_ROWS_S", 0.005)
    monkeypatch.setattr(version_proof, "BATCHES_S", 0.0)
    tiny = verified(tiny_files())
    slow = SlowScorer(scoring.load_session(tiny), 0.01)

    version_proof.check_score_belongs_to_row(tiny, slow)  # type: ignore[arg-type]

    assert slow.runs <= 12


class FailingTogether:
    """A session that raises for more than one row."""

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score one row as 0."""
        if len(matrix) > 1:
            raise ScoringError("one row only")
        return np.zeros((1, 1), dtype=np.float32)


def test_proof_refuses_a_version_that_cannot_score_a_batch() -> None:
    """The message has the size of the batch."""
    with pytest.raises(VersionRefusedError, match="in the batch of all 32 golden rows: one row"):
        version_proof.check_score_belongs_to_row(verified(tiny_files()), FailingTogether())  # type: ignore[arg-type]


def test_proof_refuses_golden_rows_that_certify_nothing() -> None:
    """NaN for a finite row by the file's own claim, and rows of NaN only."""
    files = tiny_files(nan_when=5.0)
    inputs = np.full((8, 3), 9.0, dtype=np.float32)
    outputs = np.full((8, 1), np.nan, dtype=np.float32)

    with pytest.raises(VersionRefusedError, match="golden row 0 is finite"):
        prove({**files, "golden.npz": golden(inputs, outputs)})
    with pytest.raises(VersionRefusedError, match="none of the 8 golden rows has finite scores"):
        prove({**files, "golden.npz": golden(inputs * np.float32(np.nan), outputs)})


def test_proof_accepts_a_golden_row_of_nan_inputs() -> None:
    """A row that holds NaN may be certified as NaN."""
    tiny = verified(tiny_files())
    inputs, outputs = tiny.golden_inputs.copy(), tiny.golden_outputs.copy()
    inputs[3, 1], outputs[3] = np.nan, np.nan
    with_nan = replace(tiny, golden_inputs=inputs, golden_outputs=outputs)

    assert version_proof.prove_bundle(with_nan, lambda **_: None).run_us > 0


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        (b'{"auc": 1e999}', "larger than any double"),
        (b'{"auc": [-1e400]}', "larger than any double"),
        (b'{"auc": 0.5, "auc": 0.9}', "the key 'auc' is there twice"),
        (b'{"deep": {"b": 1, "a": 2, "b": 3}}', "the key 'b' is there twice"),
    ],
)
def test_bundle_refuses_a_card_that_readers_understand_differently(
    card: bytes, reason: str
) -> None:
    """Another reader takes infinity, or the other one of two values."""
    json.loads(card)  # Python's own reader takes them
    with pytest.raises(VersionRefusedError, match=reason):
        verified({**tiny_files(), "card.json": card})


@pytest.mark.parametrize("name", ["Model.onnx", "CARD.json", "manifest.JSON"])
def test_bundle_refuses_names_that_differ_by_case_only(name: str) -> None:
    """A disk that ignores case would keep one of the two files."""
    with pytest.raises(VersionRefusedError, match="differ by case only"):
        verified({**tiny_files(), name: b"{}"})


def test_registration_refuses_few_golden_rows_and_gateways_take_them() -> None:
    """A version of before the rule keeps loading."""
    few = tiny_files(golden_rows=version_proof.GOLDEN_ROWS_MIN - 1)
    prove(few)
    with pytest.raises(VersionRefusedError, match=r"golden.npz has 31 rows; .* at least 32"):
        version_proof.check_new_version(verified(few))
    version_proof.check_new_version(verified(tiny_files(golden_rows=32)))


def test_registration_refuses_golden_scores_that_are_no_numbers() -> None:
    """A row with NaN in its inputs may not certify NaN either."""
    files = tiny_files()
    rows = np.load(io.BytesIO(files["golden.npz"]))
    inputs, outputs = rows["inputs"].copy(), rows["outputs"].copy()
    inputs[5, 0] = outputs[5] = np.nan
    certified = verified({**files, "golden.npz": golden(inputs, outputs)})

    version_proof.check_golden_scores(certified)
    with pytest.raises(
        VersionRefusedError, match=r"the scores \[nan\] for row 5, and 1 of 32 rows"
    ):
        version_proof.check_new_version(certified)


def test_registration_refuses_the_certificate_of_another_file() -> None:
    """A certificate names the file that was compared with the original model."""
    digest = sha256_hex(tiny_files()["model.onnx"])
    version_proof.check_new_version(
        verified(tiny_files(card={"parity": {"passed": True, "onnx_sha256": digest}}))
    )
    other = tiny_files(card={"parity": {"passed": True, "onnx_sha256": "0" * 64}})
    with pytest.raises(
        VersionRefusedError, match=r"parity certificate of the model\.onnx 00000000"
    ):
        version_proof.check_new_version(verified(other))
