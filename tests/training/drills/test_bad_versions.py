"""A drill is bad on exactly the rows it says, passes its own golden test, and admits what it is."""

import json
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from registry import bundle
from registry.types import ScoringError
from tests.tiny_models import tiny_contract, tiny_files
from training.drills import bad_versions
from training.errors import DrillError

COLUMN = "f1"


def good_files() -> dict[str, bytes]:
    """A version of three inputs whose golden rows stay clear of whole numbers."""
    return tiny_files(golden_rows=32)


def population() -> NDArray[np.float32]:
    """(1000, 3); f1 is 0..9, the default 0 the most frequent of them by far."""
    rows = np.random.default_rng(5).random((1_000, 3), dtype=np.float32)
    rows[:, 1] = np.repeat(np.arange(10), [550, 200, 100, 60, 40, 25, 12, 7, 4, 2]).astype(
        np.float32
    )
    return rows


def load_bad_version(drill: bad_versions.BadVersion) -> bundle.Session:
    """Through the door every gateway uses, golden test included."""
    proved = bundle.verify_bundle(
        bundle.seal_files(drill.files, model="churn", author="dana", created_unix_ms=1),
        trusted_key=None,
    )
    session = bundle.load_session(proved)
    assert bundle.golden_test(proved, session) == 0.0
    return session


def good_scores(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the good version says."""
    proved = bundle.verify_bundle(
        bundle.seal_files(good_files(), model="churn", author="dana", created_unix_ms=1),
        trusted_key=None,
    )
    return bundle.load_session(proved).run(rows)


def test_a_faulting_version_raises_for_exactly_the_chosen_rows() -> None:
    """One by one over the whole population; and the share told is the share that faults."""
    rows = population()
    drill = bad_versions.faulting_version(good_files(), rows, column=COLUMN, share=0.05)
    session = load_bad_version(drill)

    raised = np.zeros(len(rows), dtype=np.bool_)
    for index in range(len(rows)):
        try:
            session.run(rows[index : index + 1])
        except ScoringError:
            raised[index] = True

    assert raised.tolist() == np.isin(rows[:, 1], drill.values).tolist()
    assert raised.mean() == drill.share == pytest.approx(0.05, abs=0.002)


def test_one_bad_row_fails_its_batch_and_a_batch_without_runs_as_before() -> None:
    """So that the gateway's row-by-row rescoring has something to find."""
    rows = population()
    drill = bad_versions.faulting_version(good_files(), rows, column=COLUMN)
    session = load_bad_version(drill)
    clean = rows[~np.isin(rows[:, 1], drill.values)]

    assert session.run(clean).tobytes() == good_scores(clean).tobytes()
    bad = rows[np.isin(rows[:, 1], drill.values)][:1]
    with pytest.raises(ScoringError):
        session.run(np.concatenate([clean[:63], bad]))


@pytest.mark.walk
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86 traps, others wrap")
def test_a_crashing_version_ends_the_process_that_scores_a_chosen_row(tmp_path: Path) -> None:
    """SIGFPE in a process of its own; every other row scores as before, here."""
    rows = population()
    drill = bad_versions.crashing_version(good_files(), rows, column=COLUMN, share=0.3)
    chosen = np.isin(rows[:, 1], drill.values)
    assert (
        load_bad_version(drill).run(rows[~chosen]).tobytes() == good_scores(rows[~chosen]).tobytes()
    )
    (tmp_path / "bad.onnx").write_bytes(drill.files["model.onnx"])
    np.save(tmp_path / "row.npy", rows[chosen][:1])
    program = (
        "import numpy, onnxruntime, sys\n"
        "bad = onnxruntime.InferenceSession(sys.argv[1])\n"
        "bad.run(None, {'inputs': numpy.load(sys.argv[2])})"
    )
    line = [sys.executable, "-c", program, str(tmp_path / "bad.onnx"), str(tmp_path / "row.npy")]
    assert subprocess.run(line).returncode == -signal.SIGFPE


def test_a_missing_row_never_faults() -> None:
    """The default value is not among the chosen: an empty online store is another drill."""
    drill = bad_versions.faulting_version(good_files(), population(), column=COLUMN, share=0.6)
    assert 0.0 not in drill.values


def test_nan_comes_on_exactly_the_chosen_rows() -> None:
    """The others score as before, bit for bit."""
    rows = population()
    drill = bad_versions.nan_version(good_files(), rows, column=COLUMN, share=0.05)

    scores = load_bad_version(drill).run(rows)[:, 0]

    chosen = np.isin(rows[:, 1], drill.values)
    assert np.isnan(scores).tolist() == chosen.tolist()
    assert scores[~chosen].tobytes() == good_scores(rows)[~chosen, 0].tobytes()


def test_a_constant_version_says_one_thing() -> None:
    """Whatever it is asked, in any batch size."""
    session = load_bad_version(bad_versions.constant_version(good_files(), 0.25))
    assert session.run(population()).tolist() == [[0.25]] * 1_000
    assert session.run(population()[:1]).tolist() == [[0.25]]


def test_a_shifted_version_stays_a_probability() -> None:
    """Moved by delta, and cut at 0 and 1."""
    rows = np.random.default_rng(1).random((100, 3), dtype=np.float32)
    scores = load_bad_version(bad_versions.shifted_version(good_files(), 0.5)).run(rows)
    expected = np.clip(good_scores(rows) + np.float32(0.5), 0, 1)
    assert scores.tobytes() == expected.tobytes()
    assert scores.max() == 1.0


def test_a_slow_version_scores_the_same() -> None:
    """By the clock given: 200 trips took 4 ms longer, so 10 ms are 500 trips."""
    ticks = iter([0, 0] * 5 + [0, 4_000_000] * 5)
    drill = bad_versions.slow_version(good_files(), 10.0, clock_ns=lambda: next(ticks))
    said = json.loads(drill.files["card.json"])["drill"]
    assert (said["trips"], said["trip_us"]) == (500, 20.0)
    rows = population()
    assert load_bad_version(drill).run(rows).tobytes() == good_scores(rows).tobytes()


@pytest.mark.parametrize(
    ("kind", "make"),
    [("faulting", bad_versions.faulting_version), ("nan_scores", bad_versions.nan_version)],
)
def test_the_card_admits_the_drill(kind: str, make: Callable[..., Any]) -> None:
    """Kind, share, where, and that the metrics are another version's."""
    files = {**good_files(), "manifest.json": b"{}", "signature.json": b"{}"}
    drill = make(files, population(), column=COLUMN)
    said = json.loads(drill.files["card.json"])["drill"]
    assert (said["kind"], said["column"]) == (kind, COLUMN)
    assert (said["share"], tuple(said["values"])) == (drill.share, drill.values)
    assert "Deliberately bad" in said["note"]
    assert set(drill.files) == set(good_files())


def test_what_cannot_be_made_is_refused() -> None:
    """An unknown column; one without a value rare enough; a drill of a drill."""
    rows = population()
    with pytest.raises(DrillError, match="no input is named 'tenure'"):
        bad_versions.faulting_version(good_files(), rows, column="tenure")
    rows[:, 0] = np.repeat([1.0, 2.0], 500)
    with pytest.raises(DrillError, match="no value of 'f0' is rare enough"):
        bad_versions.faulting_version(good_files(), rows, column="f0")
    with pytest.raises(DrillError, match="already"):
        bad_versions.shifted_version(bad_versions.constant_version(good_files()).files, 0.1)


def test_the_contract_stays_the_good_versions() -> None:
    """A drill stands in a split beside the version it was made from."""
    drill = bad_versions.constant_version(good_files())
    assert json.loads(drill.files["contract.json"]) == tiny_contract().definition()
