"""golden.npz: spread over what there is, and the same bytes each time."""

import io
import time

import numpy as np
import pytest

from training.artifacts import golden_rows


def test_rows_are_spread_from_first_to_last() -> None:
    """192 held-out and 64 edge rows."""
    rows = np.arange(2_000, dtype=np.float32).reshape(1_000, 2)
    chosen = golden_rows.choose_golden_rows(rows, rows + 5_000)
    assert chosen.shape == (256, 2)
    assert chosen[0].tolist() == rows[0].tolist()
    assert chosen[191].tolist() == rows[-1].tolist()
    assert chosen[192].tolist() == (rows[0] + 5_000).tolist()


def test_few_rows_are_all_taken() -> None:
    """A small model has few edges."""
    assert golden_rows.choose_golden_rows(
        np.zeros((3, 2), np.float32), np.ones((2, 2), np.float32)
    ).shape == (
        5,
        2,
    )


def test_bytes_do_not_depend_on_the_time_of_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive remembers when it was packed; ours must not."""
    inputs, outputs = np.ones((2, 3), np.float32), np.zeros((2, 1), np.float32)
    first = golden_rows.write_golden(inputs, outputs)
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    assert golden_rows.write_golden(inputs, outputs) == first
    with np.load(io.BytesIO(first), allow_pickle=False) as archive:
        assert archive["inputs"].shape == (2, 3)
        assert archive["outputs"].dtype == np.float32
