"""Tests of certificates on served rows."""

import json

import numpy as np
import pytest

from protos.journal_pb2 import ServedBatch
from registry import bundle
from registry.bundle import Bundle
from tests.tiny_models import linear_weights, tiny_contract, tiny_files
from training.certify import ROWS_MIN, certified_files, measure_shift, rows_to_certify_on
from training.errors import CertifyError


def sealed(**options: object) -> tuple[dict[str, bytes], Bundle]:
    """Return the files of a tiny version, and its bundle."""
    files = bundle.seal_files(
        tiny_files(**options),  # type: ignore[arg-type]
        model="churn",
        author="dana",
        created_unix_ms=1,
    )
    return files, bundle.verify_bundle(files, trusted_key=None)


def served(production: Bundle, ids: list[str], rows: np.ndarray, contract: str = "") -> ServedBatch:
    """Return a journal record of calls of one row each."""
    calls = len(ids)
    return ServedBatch(
        model="churn",
        at_unix_ns=np.full(calls, 10**18, "<i8").tobytes(),
        row_count=np.ones(calls, "<u4").tobytes(),
        row_flags=np.zeros(calls, "<u4").tobytes(),
        width=rows.shape[1],
        vectors=rows.astype("<f4").tobytes(),
        entity_ids=ids,
        model_contract=contract or production.contract.model_contract,
    )


def test_rows_to_certify_on_are_the_newest_of_each_customer() -> None:
    """Rows of versions with another contract are left out."""
    _, production = sealed()
    first, second = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    batches = [
        served(production, ["a", "b"], first),
        served(production, ["b", "c"], second),
        served(production, ["d", "e"], second * 9, contract="other"),
    ]

    rows = rows_to_certify_on(batches, production, rows_max=10)

    assert rows.tolist() == [[0, 0, 0], [1, 1, 1], [1, 1, 1]]
    assert rows_to_certify_on([], production, rows_max=10).shape == (0, 3)
    assert len(rows_to_certify_on(batches, production, rows_max=2)) == 2


@pytest.mark.walk
def test_certified_files_are_the_version_with_the_shift_in_its_card() -> None:
    """They have no seal of their own, so they can be registered as a new version."""
    contract, task = tiny_contract(outputs=("spend",)), "regression"
    weights = linear_weights(3) * 1_000
    _, production = sealed(contract=contract, weights=weights, task=task)
    files, candidate = sealed(contract=contract, weights=weights * np.float32(1.01), task=task)
    rows = np.random.default_rng(1).random((ROWS_MIN, 3), dtype=np.float32)

    shift = measure_shift(candidate, production, rows)
    certified = certified_files(files, shift)

    assert (shift.champion, shift.rows, shift.flips) == (production.digest, ROWS_MIN, 0)
    assert 0 < shift.mean_distance < 0.02
    assert "manifest.json" not in certified
    assert json.loads(certified["card.json"])["expected_shift"]["digest"] == shift.digest
    assert certified["model.onnx"] == files["model.onnx"]


@pytest.mark.walk
def test_certificate_is_refused_in_words() -> None:
    """Another contract, too few rows, and scores that are NaN each have a reason."""
    _, production = sealed()
    rows = np.random.default_rng(1).random((ROWS_MIN, 3), dtype=np.float32)
    _, other = sealed(contract=tiny_contract(outputs=("other",)))
    with pytest.raises(CertifyError, match="it has another contract than production"):
        measure_shift(other, production, rows)
    with pytest.raises(CertifyError, match=f"a certificate needs {ROWS_MIN}"):
        measure_shift(production, production, rows[:-1])
    _, broken = sealed(nan_when=0.5)
    with pytest.raises(CertifyError, match="rows NaN or infinite where production does not"):
        measure_shift(broken, production, rows)
