"""Tests of the questions of an adoption, and of rows of views as its sample."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from features.contract import ModelContract, ViewUse
from features.ingest.load import ingest
from features.offline import OfflineStore
from features.views import Feature, View
from tests.training.adopted.foreign_models import foreign_model, known_features
from training.adopted.proposals import AnswerProposal, propose
from turnout.adoption.questions import ask_open_questions, open_questions_error
from turnout.adoption.view_rows import newest_rows, row_ids
from turnout.errors import OperatorError

NOW_MS = 1_700_000_000_000


def proposal_for(given: Mapping[str, Any]) -> AnswerProposal:
    """Return the proposal of a model with all three questions."""
    return propose(foreign_model(), known_features(), given)


def test_three_answers_on_the_terminal_complete_the_adoption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Enter takes a proposal; an answer that is no choice is asked again."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\nmaybe\nleaves\n\n"))
    answers = ask_open_questions(proposal_for, {}).answers
    assert answers.serve == ("leaves",)
    assert answers.inputs["plan"] == "usage:plan"
    assert answers.unknown == answers.missing == {"plan": ""}
    said = capsys.readouterr()
    assert "'maybe' is none of leaves, stays" in said.err
    assert said.out.strip() == ""


def test_sources_that_are_not_accepted_say_how_to_give_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is written, and the message has the option."""
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    with pytest.raises(OperatorError, match=r"--answer inputs.COLUMN=view:feature"):
        ask_open_questions(proposal_for, {})


def test_open_questions_name_their_options() -> None:
    """Without a terminal each question says how it is answered."""
    text = str(open_questions_error(proposal_for({}), "churn.adopt.toml"))
    assert "3 questions are open" in text
    for part in ("--answer inputs.COLUMN=", "--answer serve=leaves", "--answer unknown=WORD"):
        assert part in text
    assert "lines of churn.adopt.toml" in text


def stored_view(store: OfflineStore, name: str, entities: tuple[str, ...], rows: str) -> View:
    """Ingest *rows*, SQL of entities, plan and n, and return their view."""
    view = View(
        name=name,
        entities=entities,
        features=(
            Feature(name="n", default=None),
            Feature(name="plan", dtype="category", dictionary=("pre", "post"), default=None),
        ),
        ttl_ms=86_400_000,
        transform=f"SELECT {', '.join(entities)}, event_time_ms, n, plan FROM source",
    )
    path = store.folder(view).parent / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({rows}) TO '{path}' (FORMAT parquet)")
    ingest(view, store, str(path), created_ms=NOW_MS)
    return view


def test_newest_rows_of_views_are_joined_by_their_ids(tmp_path: Path) -> None:
    """A view of a part of the entities joins by it; words stand for positions, None for NaN."""
    # Rows of subscribers with offers, and of subscribers alone.
    store = OfflineStore(tmp_path)
    at = f"{NOW_MS - 1_000}::BIGINT AS event_time_ms"
    pairs = stored_view(
        store,
        "offers",
        ("subscriber", "offer"),
        f"SELECT 'S' || i AS subscriber, 'O' AS offer, {at}, i::DOUBLE AS n, 'pre' AS plan "
        "FROM range(3) t(i)",
    )
    single = stored_view(
        store,
        "usage",
        ("subscriber",),
        f"SELECT 'S' || i AS subscriber, {at}, 10.0 * i AS n, "
        "CASE i WHEN 0 THEN NULL WHEN 1 THEN 'post' ELSE 'strange' END AS plan "
        "FROM range(3) t(i)",
    )
    # A model that reads both.
    contract = ModelContract(
        entities=("subscriber", "offer"),
        views=(
            ViewUse(view=single, features=("plan", "n")),
            ViewUse(view=pairs, features=("n",)),
        ),
    )
    table = newest_rows(contract, tmp_path)

    assert np.array_equal(table["usage:n"], 10 * table["offers:n"])
    assert table["usage:plan"].tolist() == [None, "post", "\u2047"]
    assert row_ids(contract, tmp_path) == ("S0", "O")
    assert newest_rows(contract, tmp_path / "nowhere") == {}
