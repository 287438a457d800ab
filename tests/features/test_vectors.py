"""Tests of the committed byte vectors, which readers and writers in any language must match."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.canonical import canonical_json
from features.contract import ModelContract
from features.entity_ids import check_entity_id, id_hashes, join_ids
from features.rows import DEFAULTED, ViewRows
from features.views import View

VECTORS = Path(__file__).parents[1] / "vectors"
STORED = json.loads((VECTORS / "feature_rows.json").read_text())["views"]
HASHED = json.loads((VECTORS / "contract_hashes.json").read_text())


@pytest.mark.parametrize("case", STORED, ids=lambda case: str(case["definition"]["name"]))
def test_rows_and_keys_have_the_bytes_of_the_vectors(case: dict[str, Any]) -> None:
    """Rows are packed to these bytes, and decoded from them."""
    view = View.from_definition(case["definition"])
    rows = ViewRows(view)
    ids = [join_ids([check_entity_id(item) for item in row["ids"]]) for row in case["rows"]]
    values = np.array([row["value_bits"] for row in case["rows"]], np.uint32).view(np.float32)
    valid = np.array([row["valid"] for row in case["rows"]], np.bool_)
    events = np.array([row["event_time_ms"] for row in case["rows"]], np.int64)
    stored = [bytes.fromhex(row["row_hex"]) for row in case["rows"]]

    assert [key.hex() for key in rows.store_keys(ids)] == [row["key_hex"] for row in case["rows"]]
    assert rows.pack(ids, events, values, valid) == stored
    for index, value in enumerate(stored):
        decoded = rows.decode([value], id_hashes(ids[index : index + 1]), int(events[index]))
        assert decoded.values.tobytes() == values[index].tobytes()
        assert decoded.flags.tolist() == [0 if valid[index].all() else DEFAULTED]


@pytest.mark.parametrize("case", HASHED["contracts"])
def test_contracts_have_the_hashes_of_the_vectors(case: dict[str, Any]) -> None:
    """All hashes and the guard fit, and contract.json is rebuilt from the contract."""
    contract = ModelContract.from_definition(case["contract"])
    assert json.loads(json.dumps(contract.definition())) == case["contract"]
    assert contract.guard == case["guard"]


@pytest.mark.parametrize("case", HASHED["canonical"])
def test_canonical_json_has_the_text_of_the_vectors(case: dict[str, Any]) -> None:
    """Keys are sorted, there are no blanks, and integral floats are integers."""
    assert canonical_json(case["value"]).decode() == case["text"]
