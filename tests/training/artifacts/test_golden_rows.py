"""Tests of golden.npz."""

import io
import time

import numpy as np
import pytest

from training.artifacts import golden_rows


def test_golden_rows_are_evenly_spaced() -> None:
    """192 held-out and 64 edge rows, with the first and the last."""
    rows = np.arange(2_000, dtype=np.float32).reshape(1_000, 2)
    chosen = golden_rows.choose_golden_rows(rows, rows + 5_000)
    assert chosen.shape == (256, 2)
    assert chosen[0].tolist() == rows[0].tolist()
    assert chosen[191].tolist() == rows[-1].tolist()
    assert chosen[192].tolist() == (rows[0] + 5_000).tolist()


def test_golden_rows_of_a_small_set_are_all_rows() -> None:
    """A small model has few edge rows."""
    assert golden_rows.choose_golden_rows(
        np.zeros((3, 2), np.float32), np.ones((2, 2), np.float32)
    ).shape == (
        5,
        2,
    )


def test_golden_file_does_not_depend_on_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A zip file has the time of its entries, which must be constant."""
    inputs, outputs = np.ones((2, 3), np.float32), np.zeros((2, 1), np.float32)
    first = golden_rows.write_golden(inputs, outputs)
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    assert golden_rows.write_golden(inputs, outputs) == first
    with np.load(io.BytesIO(first), allow_pickle=False) as archive:
        assert archive["inputs"].shape == (2, 3)
        assert archive["outputs"].dtype == np.float32
