"""Tests of bad versions that are made from production alone."""

import json

import numpy as np
import pytest

from registry import bundle, scoring, version_proof
from registry.types import ScoringError
from tests.tiny_models import tiny_files
from training.drills import bad_versions, from_production
from training.errors import DrillError

PRODUCTION = "ab" * 32


def loaded_session(files: dict[str, bytes]) -> scoring.Session:
    """Verify and prove a version as registry and gateways do."""
    sealed = bundle.seal_files(files, model="tiny", author="dana", created_unix_ms=1)
    verified = bundle.verify_bundle(sealed, trusted_key=None)
    return version_proof.prove_bundle(verified, lambda **_: None).session


def failed_rows(session: scoring.Session, rows: np.ndarray) -> int:
    """The number of rows that raise, each scored alone."""
    count = 0
    for row in rows:
        try:
            session.run(row[None])
        except ScoringError:
            count += 1
    return count


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """(150, 3) rows of customers."""
    return np.random.default_rng(5).random((150, 3), dtype=np.float32)


@pytest.mark.parametrize("kind", [kind for kind in from_production.KINDS if kind != "slow"])
def test_drill_of_every_kind_loads_and_says_what_it_is(kind: str) -> None:
    """Its card states that it scores like production."""
    drill = from_production.make_bad_version(kind, tiny_files("tiny"), PRODUCTION)
    loaded_session(drill.files)
    card = json.loads(drill.files["card.json"])
    assert card["drill"]["kind"] == kind.split("-")[0]
    assert card["expected_shift"]["champion"] == PRODUCTION
    assert np.array(card["expected_shift"]["table"]).trace() == 20_000


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("failing-100", 150, 150), ("failing-5", 1, 20), ("failing-1", 0, 7), ("leak", 0, 5)],
)
def test_drill_fails_about_the_share_and_the_same_rows_each_time(
    kind: str, low: int, high: int, rows: np.ndarray
) -> None:
    """The number for 150 customers is within chance, and the same twice."""
    session = loaded_session(
        from_production.make_bad_version(kind, tiny_files("tiny"), PRODUCTION).files
    )
    first = failed_rows(session, rows)
    assert low <= first <= high
    assert failed_rows(session, rows) == first


def test_flapping_drill_fails_in_half_of_its_runs(rows: np.ndarray) -> None:
    """A row fails in one run, and not in another."""
    session = loaded_session(
        from_production.make_bad_version("flapping", tiny_files("tiny"), PRODUCTION).files
    )
    assert 45 < failed_rows(session, rows) < 105


def test_nan_drill_scores_nan_for_every_row(rows: np.ndarray) -> None:
    """The golden row is an exception, or the version would not load."""
    session = loaded_session(
        from_production.make_bad_version("nan", tiny_files("tiny"), PRODUCTION).files
    )
    assert np.isnan(session.run(rows)).all()


def test_drill_hashes_missing_features(rows: np.ndarray) -> None:
    """A row with NaN fails or not, but is hashed without an error."""
    session = loaded_session(
        from_production.make_bad_version("failing-5", tiny_files("tiny"), PRODUCTION).files
    )
    with_nan = rows[:200].copy()
    with_nan[:, 1] = np.nan
    assert 1 <= failed_rows(session, with_nan) <= 30


def test_drill_of_an_unknown_kind_or_of_a_bad_version_is_refused() -> None:
    """The message lists the kinds, or says that the version is bad already."""
    good = tiny_files("tiny")
    with pytest.raises(DrillError, match="failing-5"):
        from_production.make_bad_version("tired", good, PRODUCTION)
    with pytest.raises(DrillError, match="bad already"):
        from_production.make_bad_version(
            "constant", dict(bad_versions.constant_version(good).files), PRODUCTION
        )
