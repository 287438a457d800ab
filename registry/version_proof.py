"""What a version must pass before anybody opens it outside a child process.

Registration and the gateways' probes run the same `prove_bundle`, each in a child process.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.canonical import sha256_hex
from registry.bundle import Bundle
from registry.golden import ScoreTolerance
from registry.scoring import (
    Session,
    allowed_differences,
    golden_test,
    load_session,
    score_differences,
)
from registry.types import ScoringError, VersionRefusedError

ROW_TOLERANCE = ScoreTolerance(absolute=1e-5, relative=1e-5)
"""How far the score of a row may move with its company, unless the version states more or less.

Honest files move by the last bits of a float32: a product of matrices adds in another order for one
row than for 64.
"""

SINGLE_ROWS_MAX = 64
SINGLE_ROWS_MIN = 2
SINGLE_ROWS_S = 0.5
"""So many golden rows are scored alone, twice. A slow version has fewer, so that it passes in time:
as many as it scores in SINGLE_ROWS_S."""

BATCH_RUNS = ((2, 16), (3, 16), (64, 4), (257, 2))
"""(rows of a batch, how many such batches are scored)."""
BATCHES_S = 2.0
"""After so much time each size of batch gets one more run only."""

GOLDEN_ROWS_MIN = 32
"""Fewest golden rows of a version that is registered. A file that differs for 1 row in 10 passes
with 32 golden rows once in 29 times (0.9 ** 32 = 3.4 %), and with 8 rows in 4 of 10 times."""

EDGE_VALUES = (np.nan, 0.0, 3.4e38, -3.4e38, np.inf)
"""Each fills one row, which stands beside golden rows."""
MIXED_ROWS = 64
"""Rows beside golden rows that take each input from another golden row."""

OWN_ROW_ONLY = (
    "a score must depend on its own row only, because a gateway scores the rows of several callers "
    "together. Look for operators over axis 0 (ReduceMean, Softmax, CumSum), dynamic "
    "quantisation, BatchNormalization or Dropout in training mode, and random numbers"
)

Report = Callable[..., None]
"""Report(doing="a step") tells the parent process what is done next."""


@dataclass(frozen=True, slots=True)
class ProvenVersion:
    """An open version that passed, and what was measured."""

    session: Session
    load_ms: float
    """Time to load the model file."""
    run_us: float
    """Time to score one row, the fastest run."""


def prove_bundle(bundle: Bundle, report: Report) -> ProvenVersion:
    """Open a verified version, score its golden rows, and check that a score belongs to its row.

    The file may crash or hang this process, so it must be a child process with limits.

    Raises VersionRefusedError, which says what was promised.
    """
    check_golden_scores(bundle)
    report(doing="loading model.onnx")
    began = time.perf_counter()
    session = load_session(bundle)
    load_ms = (time.perf_counter() - began) * 1e3
    report(doing="scoring the golden rows")
    golden_test(bundle, session)
    report(doing="scoring golden rows alone and among strangers")
    run_s = check_score_belongs_to_row(bundle, session)
    return ProvenVersion(session, round(load_ms, 1), round(run_s * 1e6, 1))


def check_golden_scores(bundle: Bundle) -> None:
    """Refuse a version that certifies NaN or infinity for a finite row, or no score at all."""
    finite_rows = np.isfinite(bundle.golden_inputs).all(axis=1)
    finite_scores = np.isfinite(bundle.golden_outputs).all(axis=1)
    useless = np.flatnonzero(finite_rows & ~finite_scores)
    if len(useless):
        row = int(useless[0])
        raise VersionRefusedError(
            f"golden row {row} is finite, and golden.npz certifies the scores "
            f"{bundle.golden_outputs[row].tolist()} for it. A score that is not a number answers "
            "no caller; correct the model, or leave such rows out of its domain"
        )
    if not np.any(finite_scores):
        raise VersionRefusedError(
            f"none of the {len(bundle.golden_outputs)} golden rows has finite scores, so "
            "golden.npz certifies nothing; give it rows that the model scores"
        )


def check_new_version(bundle: Bundle) -> None:
    """Refuse golden rows that prove too little, and the parity certificate of another file.

    Golden rows that are too few, or have scores that are no numbers, prove too little.

    Only a registration asks for this. Gateways load versions from before the rule too, so they run
    `check_golden_scores` alone.
    """
    scores = bundle.golden_outputs
    if len(scores) < GOLDEN_ROWS_MIN:
        raise VersionRefusedError(
            f"golden.npz has {len(scores)} rows; a new version needs at least {GOLDEN_ROWS_MIN}, "
            "because a file that differs for 1 row in 10 passes with fewer too often. Give it more "
            "rows of the training data, or let `turnout adopt` write the files"
        )
    useless = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(useless):
        row = int(useless[0])
        raise VersionRefusedError(
            f"golden.npz certifies the scores {scores[row].tolist()} for row {row}, and "
            f"{len(useless)} of {len(scores)} rows have scores that are not finite. A golden score "
            "must be a number: leave these rows out, or correct the model"
        )
    parity = bundle.card.get("parity")
    certified = parity.get("onnx_sha256") if isinstance(parity, dict) else None
    if certified is not None and certified != sha256_hex(bundle.onnx):
        raise VersionRefusedError(
            f"card.json has the parity certificate of the model.onnx {str(certified)[:16]}; this "
            f"one is {sha256_hex(bundle.onnx)[:16]}. Certify this file, or leave `parity` out"
        )


def check_score_belongs_to_row(bundle: Bundle, session: Session) -> float:
    """Refuse a version whose score of a row depends on other rows or on earlier calls.

    Golden rows are scored alone, together in two orders, in batches with strangers, and alone
    again. Returns the seconds of the fastest run of one row. Raises VersionRefusedError, which
    names row, batch and difference.
    """
    # The id decides what is drawn, so that every host draws the same.
    rng = np.random.default_rng(int(bundle.digest[:16], 16))
    rows = bundle.golden_inputs
    check = _RowCheck(rows, session, bundle.tolerance or ROW_TOLERANCE)
    # Alone first: everything else is compared with it.
    check.score_alone(rng.permutation(len(rows))[:SINGLE_ROWS_MAX])
    # The golden rows together, as they were certified and shuffled.
    certified, shuffled = np.arange(len(rows)), rng.permutation(len(rows))
    check.compare(certified, rows, f"in the batch of all {len(rows)} golden rows")
    check.compare(shuffled, rows[shuffled], f"in a shuffled batch of all {len(rows)} golden rows")
    # Batches of a few golden rows and strangers.
    strangers = _strangers(rows, session, rng)
    until = time.perf_counter() + BATCHES_S
    for size, runs in BATCH_RUNS:
        for run in range(runs):
            if run and time.perf_counter() > until:
                break
            _compare_among_strangers(check, strangers, size, rng, nan_row=run % 2 == 0)
    # Alone again: no call may have changed a later one.
    check.compare_alone()
    return check.fastest_s


class _RowCheck:
    """Compares the scores of golden rows with the scores that they have alone."""

    def __init__(
        self, rows: NDArray[np.float32], session: Session, tolerance: ScoreTolerance
    ) -> None:
        """Take the (G, F) golden rows, the open version, and how far scores may move."""
        self._rows = rows
        self._tolerance = tolerance
        self._session = session
        self._alone: dict[int, NDArray[np.float32]] = {}
        """Golden row -> its (K,) scores alone."""
        self._calls = 0
        self.fastest_s = np.inf
        """Seconds of the fastest run of one row."""

    @property
    def picked(self) -> NDArray[np.intp]:
        """The golden rows whose score alone is known."""
        return np.array(list(self._alone), dtype=np.intp)

    def rows_of(self, golden: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the (R, F) inputs of golden rows."""
        return self._rows[golden]

    def score_alone(self, order: NDArray[np.intp]) -> None:
        """Score golden rows alone: at least SINGLE_ROWS_MIN, others within SINGLE_ROWS_S."""
        began = time.perf_counter()
        for row in order.tolist():
            if len(self._alone) >= SINGLE_ROWS_MIN and time.perf_counter() - began > SINGLE_ROWS_S:
                break
            self._alone[row] = self._run_alone(row)

    def compare_alone(self) -> None:
        """Score the same rows alone again, and compare."""
        for row, scores in self._alone.items():
            after = f"alone again, after {self._calls} other calls"
            self._refuse_difference(row, scores, self._run_alone(row), after)

    def compare(self, golden: NDArray[np.intp], batch: NDArray[np.float32], company: str) -> None:
        """Score *batch*, (B, F), and compare its golden rows.

        golden   (B,) the golden row at each position; -1 for a stranger.
        company  where the rows are, for the message.
        """
        try:
            scores = self._run(batch, company)
        except VersionRefusedError:
            # A gateway finds the call that raises, and scores the others without it.
            if (golden < 0).any():
                return
            raise
        for position, row in enumerate(golden.tolist()):
            if row in self._alone:
                self._refuse_difference(row, self._alone[row], scores[position], company)

    def _run_alone(self, row: int) -> NDArray[np.float32]:
        began = time.perf_counter()
        scores: NDArray[np.float32] = self._run(self._rows[row : row + 1], "alone")[0]
        self.fastest_s = min(self.fastest_s, time.perf_counter() - began)
        return scores

    def _run(self, batch: NDArray[np.float32], company: str) -> NDArray[np.float32]:
        self._calls += 1
        try:
            return self._session.run(np.ascontiguousarray(batch))
        except ScoringError as error:
            raise VersionRefusedError(f"golden rows cannot be scored {company}: {error}") from error

    def _refuse_difference(
        self, row: int, alone: NDArray[np.float32], scores: NDArray[np.float32], company: str
    ) -> None:
        differences = score_differences(scores, alone)
        allowed = allowed_differences(self._tolerance, alone)
        if (differences <= allowed).all():
            return
        worst = int(np.argmax(differences - allowed))
        raise VersionRefusedError(
            f"golden row {row} scores {alone[worst]} alone and {scores[worst]} {company}; the "
            f"difference is {differences[worst]:.3g}, and at most {allowed[worst]:.3g} is allowed. "
            f"{OWN_ROW_ONLY}"
        )


def _strangers(
    rows: NDArray[np.float32], session: Session, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return (S, F) rows to stand beside golden rows: edge rows first, then mixed golden rows.

    An edge row on which the version raises is left out, so that its batches can be compared.
    """
    width = rows.shape[1]
    edges = np.repeat(np.array(EDGE_VALUES, dtype=np.float32)[:, None], width, axis=1)
    if not _can_be_scored(session, edges):
        edges = edges[[_can_be_scored(session, edge[None]) for edge in edges]]
    # A mixed row takes each input from another golden row.
    drawn = rng.integers(0, len(rows), (MIXED_ROWS, width))
    return np.concatenate([edges, rows[drawn, np.arange(width)]])


def _can_be_scored(session: Session, rows: NDArray[np.float32]) -> bool:
    try:
        session.run(rows)
    except ScoringError:
        return False
    return True


def _compare_among_strangers(
    check: _RowCheck,
    strangers: NDArray[np.float32],
    size: int,
    rng: np.random.Generator,
    *,
    nan_row: bool,
) -> None:
    """Score one batch of *size* rows, half golden rows and half strangers at random places.

    nan_row  one stranger is the first edge row, which is NaN unless the version raises on NaN.
    """
    picked = rng.permutation(check.picked)[: (size + 1) // 2]
    company = rng.integers(0, len(strangers), size - len(picked))
    if nan_row:
        company[0] = 0
    places = rng.permutation(size)
    golden = np.concatenate([picked, np.full(len(company), -1)])[places]
    batch = np.concatenate([check.rows_of(picked), strangers[company]])[places]
    check.compare(golden, batch, f"in a batch of {size} with {len(company)} strangers")
