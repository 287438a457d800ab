"""Rows on which the models of tests/training/adoption are trained and scored."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("usage", "tenure", "balance", "plan")
PLANS = ("prepaid", "postpaid", "business")


def churn_columns(rows: int, seed: int = 1) -> dict[str, NDArray[Any]]:
    """Return column -> (rows,) values: two of float64, one of int64, one of texts."""
    drawn = np.random.default_rng(seed)
    return {
        "usage": drawn.gamma(2.0, 500.0, rows),
        "tenure": drawn.integers(0, 240, rows),
        "balance": np.round(drawn.normal(20.0, 30.0, rows), 2),
        "plan": drawn.choice(np.array(PLANS, dtype=object), rows),
    }


def churn_rows(rows: int, seed: int = 1) -> tuple[Any, NDArray[np.float64], NDArray[np.int64]]:
    """Return a frame of COLUMNS, its columns of numbers as (rows, 3), and the labels."""
    import pandas

    columns = churn_columns(rows, seed)
    frame = pandas.DataFrame(columns)
    numbers = frame[list(COLUMNS[:3])].to_numpy(dtype=np.float64)
    risk = -numbers[:, 0] / 500 - numbers[:, 1] / 100 + 2 * (columns["plan"] == PLANS[0])
    noise = np.random.default_rng(seed + 1).normal(size=rows)
    return frame, numbers, (risk + noise > -2).astype(np.int64)
