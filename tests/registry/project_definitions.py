"""Definitions of made-up projects, and versions that read their views."""

from collections.abc import Mapping, Sequence
from typing import Any

from features.canonical import canonical_json
from features.contract import ModelContract, ViewUse
from features.views import Feature, View
from tests.tiny_models import linear_weights, tiny_files

PLAN = "cd" * 32
"""Digest of some plan."""


def tiny_view(name: str, default: float = 0.0) -> View:
    """Return a view with three numbers. Another default is another edition."""
    numbers = tuple(Feature(name=f"f{n}", default=default) for n in range(3))
    return View(
        name=name,
        entities=("subscriber",),
        features=numbers,
        ttl_ms=1_000,
        transform="SELECT * FROM source",
    )


def definitions_of(
    name: str = "shop",
    *,
    views: Sequence[View] = (),
    models: Mapping[str, Mapping[str, Any]] | None = None,
    policies: Mapping[str, Mapping[str, Any]] | None = None,
) -> bytes:
    """Return the canonical JSON of a project's definitions."""
    return canonical_json(
        {
            "format": 1,
            "name": name,
            "views": {
                view.name: {
                    "canonical": view.definition(),
                    "hash": view.view_hash,
                    "source": None,
                    "expect": {},
                    "expect_rows": view.expect_rows.definition(),
                }
                for view in views
            },
            "labels": {},
            "recipes": {},
            "models": models or {},
            "policies": policies or {},
        }
    )


def files_reading(view: View, number: int = 1, model: str = "churn") -> dict[str, bytes]:
    """Return the files of a version that reads *view*. Each number has other weights."""
    use = ViewUse(view=view, features=("f0", "f1", "f2"))
    contract = ModelContract(entities=("subscriber",), views=(use,))
    return tiny_files(model, contract=contract, weights=linear_weights(3) * number)
