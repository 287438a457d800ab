"""Bad versions made from production alone: each loads, and is as bad as its kind says."""

import json

import numpy as np
import pytest

from registry import bundle
from registry.types import ScoringError
from tests.tiny_models import tiny_files
from training.drills import bad_versions, from_production
from training.errors import DrillError

PRODUCTION = "ab" * 32


def loaded_session(files: dict[str, bytes]) -> bundle.Session:
    """Verify, golden-test and load a version as a gateway does."""
    sealed = bundle.seal_files(files, model="tiny", author="dana", created_unix_ms=1)
    proved = bundle.verify_bundle(sealed, trusted_key=None)
    session = bundle.load_session(proved)
    bundle.golden_test(proved, session)
    return session


def failed_rows(session: bundle.Session, rows: np.ndarray) -> int:
    """Return how many of *rows* raise, each run alone."""
    count = 0
    for row in rows:
        try:
            session.run(row[None])
        except ScoringError:
            count += 1
    return count


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """(150, 3) customers."""
    return np.random.default_rng(5).random((150, 3), dtype=np.float32)


@pytest.mark.parametrize("kind", [kind for kind in from_production.KINDS if kind != "slow"])
def test_every_kind_loads_and_says_that_it_is_a_drill(kind: str) -> None:
    """Verified and golden-tested like any version; labelled; certified to score like production."""
    made = from_production.make_bad_version(kind, tiny_files("tiny"), PRODUCTION)
    loaded_session(made.files)
    card = json.loads(made.files["card.json"])
    assert card["drill"]["kind"] == kind.split("-")[0]
    assert card["expected_shift"]["champion"] == PRODUCTION
    assert np.array(card["expected_shift"]["table"]).trace() == 20_000


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("failing-100", 150, 150), ("failing-5", 1, 20), ("failing-1", 0, 7), ("leak", 0, 5)],
)
def test_about_the_asked_share_fails_and_the_same_rows_each_time(
    kind: str, low: int, high: int, rows: np.ndarray
) -> None:
    """Within what chance does to 150 customers; twice the same number."""
    session = loaded_session(
        from_production.make_bad_version(kind, tiny_files("tiny"), PRODUCTION).files
    )
    first = failed_rows(session, rows)
    assert low <= first <= high
    assert failed_rows(session, rows) == first


def test_flapping_fails_in_half_of_its_runs(rows: np.ndarray) -> None:
    """The same row fails, and then does not."""
    session = loaded_session(
        from_production.make_bad_version("flapping", tiny_files("tiny"), PRODUCTION).files
    )
    assert 45 < failed_rows(session, rows) < 105


def test_nan_is_answered_to_everybody(rows: np.ndarray) -> None:
    """Not to the golden row, or it would not load."""
    session = loaded_session(
        from_production.make_bad_version("nan", tiny_files("tiny"), PRODUCTION).files
    )
    assert np.isnan(session.run(rows)).all()


def test_missing_features_are_hashed_like_any_other(rows: np.ndarray) -> None:
    """A row with NaN fails or not, each time alike."""
    session = loaded_session(
        from_production.make_bad_version("failing-5", tiny_files("tiny"), PRODUCTION).files
    )
    some = rows[:200].copy()
    some[:, 1] = np.nan
    assert 1 <= failed_rows(session, some) <= 30


def test_an_unknown_kind_and_a_drill_of_a_drill_are_refused() -> None:
    """In words."""
    good = tiny_files("tiny")
    with pytest.raises(DrillError, match="failing-5"):
        from_production.make_bad_version("tired", good, PRODUCTION)
    with pytest.raises(DrillError, match="drill already"):
        from_production.make_bad_version(
            "constant", dict(bad_versions.constant_version(good).files), PRODUCTION
        )
