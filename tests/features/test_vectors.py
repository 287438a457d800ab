"""Committed bytes: what any reader or writer in any language must agree on."""

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
def test_rows_and_keys_are_these_bytes(case: dict[str, Any]) -> None:
    """Written so, and read back so, one by one and all at once."""
    view = View.from_definition(case["definition"])
    rows = ViewRows(view)
    ids = [join_ids([check_entity_id(item) for item in row["ids"]]) for row in case["rows"]]
    values = np.array([row["value_bits"] for row in case["rows"]], np.uint32).view(np.float32)
    valid = np.array([row["valid"] for row in case["rows"]], np.bool_)
    events = np.array([row["event_time_ms"] for row in case["rows"]], np.int64)
    stored = [bytes.fromhex(row["row_hex"]) for row in case["rows"]]

    assert [key.hex() for key in rows.store_keys(ids)] == [row["key_hex"] for row in case["rows"]]
    assert rows.pack(ids, events, values, valid) == stored
    for place, value in enumerate(stored):
        read = rows.decode([value], id_hashes(ids[place : place + 1]), int(events[place]))
        assert read.values.tobytes() == values[place].tobytes()
        assert read.flags.tolist() == [0 if valid[place].all() else DEFAULTED]


@pytest.mark.parametrize("case", HASHED["contracts"])
def test_contracts_have_these_hashes(case: dict[str, Any]) -> None:
    """view_hash, model_contract, input_contract, guard; and contract.json rebuilds itself."""
    contract = ModelContract.from_definition(case["contract"])
    assert json.loads(json.dumps(contract.definition())) == case["contract"]
    assert contract.guard == case["guard"]


@pytest.mark.parametrize("case", HASHED["canonical"])
def test_canonical_json_is_this_text(case: dict[str, Any]) -> None:
    """Sorted, without blanks, whole floats as integers."""
    assert canonical_json(case["value"]).decode() == case["text"]
