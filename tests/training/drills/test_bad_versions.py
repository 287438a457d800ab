"""Tests of bad versions: each is bad for exactly its rows, and passes its golden test."""

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

from registry import bundle, scoring, version_proof
from registry.types import ScoringError
from tests.tiny_models import tiny_contract, tiny_files
from training.drills import bad_versions
from training.errors import DrillError

COLUMN = "f1"


def good_files() -> dict[str, bytes]:
    """The files of a version with three inputs, whose golden rows have no integral values."""
    return tiny_files(golden_rows=32)


def population() -> NDArray[np.float32]:
    """(1000, 3) rows. Column f1 is 0 to 9, and its default 0 is the most frequent value."""
    rows = np.random.default_rng(5).random((1_000, 3), dtype=np.float32)
    rows[:, 1] = np.repeat(np.arange(10), [550, 200, 100, 60, 40, 25, 12, 7, 4, 2]).astype(
        np.float32
    )
    return rows


def load_bad_version(drill: bad_versions.BadVersion) -> scoring.Session:
    """Load the version as registry and gateways do, with the whole proof."""
    verified = bundle.verify_bundle(
        bundle.seal_files(drill.files, model="churn", author="dana", created_unix_ms=1),
        trusted_key=None,
    )
    session = version_proof.prove_bundle(verified, lambda **_: None).session
    assert scoring.golden_test(verified, session) == 0.0
    return session


def good_scores(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scores of the good version."""
    verified = bundle.verify_bundle(
        bundle.seal_files(good_files(), model="churn", author="dana", created_unix_ms=1),
        trusted_key=None,
    )
    return scoring.load_session(verified).run(rows)


def test_faulting_version_raises_for_exactly_the_chosen_rows() -> None:
    """Every row is scored alone. The stated share is the share of rows that raise."""
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


def test_faulting_version_fails_only_batches_with_a_chosen_row() -> None:
    """The gateway's scoring row by row then finds the row."""
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
def test_crashing_version_ends_the_process_that_scores_a_chosen_row(tmp_path: Path) -> None:
    """A child process ends with SIGFPE. Other rows are scored as before."""
    rows = population()
    drill = bad_versions.crashing_version(good_files(), rows, column=COLUMN, share=0.3)
    chosen = np.isin(rows[:, 1], drill.values)
    assert (
        load_bad_version(drill).run(rows[~chosen]).tobytes() == good_scores(rows[~chosen]).tobytes()
    )
    (tmp_path / "bad.onnx").write_bytes(drill.files["model.onnx"])
    np.save(tmp_path / "row.npy", rows[chosen][:1])
    program = (
        "import numpy, sys\n"
        "from host.onnx_runtime import onnxruntime\n"
        "bad = onnxruntime.InferenceSession(sys.argv[1])\n"
        "bad.run(None, {'inputs': numpy.load(sys.argv[2])})"
    )
    line = [sys.executable, "-c", program, str(tmp_path / "bad.onnx"), str(tmp_path / "row.npy")]
    assert subprocess.run(line).returncode == -signal.SIGFPE


def test_faulting_version_never_chooses_the_default() -> None:
    """An empty online store must not make every row fail."""
    drill = bad_versions.faulting_version(good_files(), population(), column=COLUMN, share=0.6)
    assert 0.0 not in drill.values


def test_choose_values_never_chooses_zero() -> None:
    """The proof of a version tries a row of zeros; a crashing version would not be registered."""
    values = np.repeat(np.arange(4), [100, 10, 10, 10]).astype(np.float32)
    chosen, _ = bad_versions.choose_values(values, 1.0, never=3.0)
    assert chosen == (1.0, 2.0)


def test_nan_version_scores_nan_for_exactly_the_chosen_rows() -> None:
    """Other rows are scored as before, bit for bit."""
    rows = population()
    drill = bad_versions.nan_version(good_files(), rows, column=COLUMN, share=0.05)

    scores = load_bad_version(drill).run(rows)[:, 0]

    chosen = np.isin(rows[:, 1], drill.values)
    assert np.isnan(scores).tolist() == chosen.tolist()
    assert scores[~chosen].tobytes() == good_scores(rows)[~chosen, 0].tobytes()


def test_constant_version_gives_every_row_one_score() -> None:
    """A batch of one row gets the same score."""
    session = load_bad_version(bad_versions.constant_version(good_files(), 0.25))
    assert session.run(population()).tolist() == [[0.25]] * 1_000
    assert session.run(population()[:1]).tolist() == [[0.25]]


def test_shifted_version_gives_scores_within_0_and_1() -> None:
    """Scores are higher by delta, and cut at 1."""
    rows = np.random.default_rng(1).random((100, 3), dtype=np.float32)
    scores = load_bad_version(bad_versions.shifted_version(good_files(), 0.5)).run(rows)
    expected = np.clip(good_scores(rows) + np.float32(0.5), 0, 1)
    assert scores.tobytes() == expected.tobytes()
    assert scores.max() == 1.0


@pytest.mark.walk
def test_slow_version_scores_as_before() -> None:
    """By the test's clock 200 products take 4 ms, so 10 ms are 500 products."""
    ticks = iter([0, 0] * 5 + [0, 4_000_000] * 5)
    drill = bad_versions.slow_version(good_files(), 10.0, clock_ns=lambda: next(ticks))
    facts = json.loads(drill.files["card.json"])["drill"]
    assert (facts["trips"], facts["trip_us"]) == (500, 20.0)
    rows = population()
    assert load_bad_version(drill).run(rows).tobytes() == good_scores(rows).tobytes()


@pytest.mark.parametrize(
    ("kind", "make"),
    [("faulting", bad_versions.faulting_version), ("nan_scores", bad_versions.nan_version)],
)
def test_bad_version_says_in_its_card_what_it_is(kind: str, make: Callable[..., Any]) -> None:
    """The card has kind, share and values, and says that its metrics are the good version's."""
    files = {**good_files(), "manifest.json": b"{}", "signature.json": b"{}"}
    drill = make(files, population(), column=COLUMN)
    facts = json.loads(drill.files["card.json"])["drill"]
    assert (facts["kind"], facts["column"]) == (kind, COLUMN)
    assert (facts["share"], tuple(facts["values"])) == (drill.share, drill.values)
    assert "Deliberately bad" in facts["note"]
    assert set(drill.files) == set(good_files())


def test_bad_version_that_cannot_be_made_is_refused() -> None:
    """The column is unknown, its values are too frequent, or the version is bad already."""
    rows = population()
    with pytest.raises(DrillError, match="no input is named 'tenure'"):
        bad_versions.faulting_version(good_files(), rows, column="tenure")
    rows[:, 0] = np.repeat([1.0, 2.0], 500)
    with pytest.raises(DrillError, match="no value of 'f0' is rare enough"):
        bad_versions.faulting_version(good_files(), rows, column="f0")
    with pytest.raises(DrillError, match="already"):
        bad_versions.shifted_version(bad_versions.constant_version(good_files()).files, 0.1)


def test_bad_version_has_the_contract_of_the_good_version() -> None:
    """A bad version shares a split with the version that it was made from."""
    drill = bad_versions.constant_version(good_files())
    assert json.loads(drill.files["contract.json"]) == tiny_contract().definition()
