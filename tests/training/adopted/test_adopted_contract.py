"""Tests of contracts, adaptations and rows of adopted versions."""

import numpy as np
import pytest

from tests.training.adopted.foreign_models import foreign_model, known_features
from training.adopted.adopted_contract import (
    adaptation_of,
    adopted_contract,
    contract_rows,
    rows_of_feed,
)
from training.adopted.proposals import propose
from training.adoption.foreign import ForeignInput
from training.errors import AdoptionError


def test_contract_reads_features_first_and_asks_callers_for_the_rest() -> None:
    """A text column takes the feature's dictionary; a column of the request the graph's words."""
    model, known = foreign_model(), known_features()
    answers = propose(model, known, {"inputs": {"plan": "request"}}).answers
    contract = adopted_contract(model, answers, known, {})

    assert contract.names == ("usage:tenure_months", "age", "plan")
    assert contract.inputs[1].dictionary == ("post", "pre")
    assert contract.outputs == ("score",)
    adaptation = adaptation_of(model, answers, contract, known)
    assert adaptation.selected == (1,)
    assert [source.model_input for source in adaptation.columns] == list(contract.names)
    both = propose(model, known, {}).answers
    stored = adopted_contract(model, both, known, {})
    assert stored.names == ("usage:tenure_months", "usage:plan", "age")
    assert adaptation_of(model, both, stored, known).columns[2].dictionary == (
        "pre",
        "post",
        "hybrid",
    )


def test_words_come_from_the_sample_where_the_graph_says_none() -> None:
    """Without both the column cannot be sent."""
    model = foreign_model(ForeignInput("t", "text", ("t",)))
    answers = propose(model, [], {}).answers
    contract = adopted_contract(model, answers, [], {"t": ("a", "b")})
    assert contract.inputs[0].dictionary == ("a", "b")
    with pytest.raises(AdoptionError, match="'t' takes words, and 0 of them are known"):
        adopted_contract(model, answers, [], {})


def test_constant_of_another_type_is_refused() -> None:
    """A number for a column of texts."""
    model = foreign_model()
    answers = propose(model, [], {"inputs": {"plan": {"constant": 3}}}).answers
    contract = adopted_contract(model, answers, [], {})
    with pytest.raises(AdoptionError, match=r"inputs.plan has the constant 3; .* takes texts"):
        adaptation_of(model, answers, contract, [])


def test_rows_become_the_contracts_and_rows_of_a_feed_come_back() -> None:
    """Positions for known words, K for others, NaN for missing; what cannot be sent is marked."""
    model = foreign_model()
    given = {"unknown": "pre", "missing": "gone", "inputs": {"age": {"constant": 4}}}
    answers = propose(model, [], given).answers
    contract = adopted_contract(model, answers, [], {})
    adaptation = adaptation_of(model, answers, contract, [])
    columns = {
        "Tenure-Months": np.array([1.5, np.nan, 3.0]),
        "age": np.array([4.0, 4.0, 4.0]),
        "plan": np.array(["pre", "other", None], dtype=object),
    }
    rows = contract_rows(columns, model, adaptation, contract)
    expected = [[1.5, 1.0], [np.nan, 2.0], [3.0, np.nan]]
    assert np.array_equal(rows, np.array(expected, dtype=np.float32), equal_nan=True)

    feed = {
        "numbers": np.array([[1.5, 4], [0.1, 4], [3, 5], [4, 4]], dtype=np.float64),
        "plan": np.array([["post"], ["pre"], ["pre"], ["strange"]], dtype=object),
    }
    back, sayable = rows_of_feed(feed, adaptation, contract)
    # 0.1 is no float32, the constant is 4, and `strange` stands for nothing.
    assert sayable.tolist() == [True, False, False, False]
    assert back[0].tolist() == [1.5, 0.0]
