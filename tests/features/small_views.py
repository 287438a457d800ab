"""Small views for the tests of features."""

import numpy as np

from features.views import Feature, View

NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000


def plan_view(ttl_ms: int = DAY_MS, transform: str = "SELECT * FROM source") -> View:
    """A view of a category and two numbers. One number has bounds, the other has NaN as default."""
    return View(
        name="plan",
        entities=("subscriber",),
        features=(
            Feature(name="kind", dtype="category", dictionary=("prepaid", "postpaid"), default=3.0),
            Feature(name="spend", default=10.5, bounds=(0.0, 1_000.0)),
            Feature(name="balance", default=None),
        ),
        ttl_ms=ttl_ms,
        transform=transform,
        source_schema=(
            ("subscriber", "VARCHAR"),
            ("event_time_ms", "BIGINT"),
            ("kind", "VARCHAR"),
            ("spend", "DOUBLE"),
            ("balance", "DOUBLE"),
        ),
    )


def wide_view(width: int) -> View:
    """A view of *width* numbers, keyed by two entities. The default of number i is i."""
    return View(
        name="wide",
        entities=("subscriber", "offer"),
        features=tuple(Feature(name=f"n{i}", default=float(i)) for i in range(width)),
        ttl_ms=DAY_MS,
        transform="SELECT * FROM source",
    )


def float32_array(*values: float) -> np.ndarray:
    """The values as a float32 array."""
    return np.array(values, dtype=np.float32)
