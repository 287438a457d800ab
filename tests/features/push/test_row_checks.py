"""Tests of the checks of pushed rows: each bad row gets one sentence, and costs no other row."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from features.encode import encode_columns
from features.entity_ids import id_hashes
from features.push.row_checks import ReceivedRow, encode_rows, find_faults, received_rows
from features.pushed import PushedRow, pushed_columns
from features.rows import ViewRows
from features.views import Feature, View
from protos.features_pb2 import PushRow
from tests.features.small_views import DAY_MS, NOW_MS, float32_array, plan_view, wide_view

VIEW = plan_view()
GOOD = ReceivedRow("e1", ("S1",), NOW_MS, {"spend": 1.5}, {"kind": "prepaid"})
HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (replace(GOOD, event_id=""), r"event_id has 0 bytes; give each row an id of its own"),
        (replace(GOOD, event_id="ä" * 65), r"event_id has 130 bytes"),
        (replace(GOOD, ids=("S" * 129,)), r"an entity id is 129 bytes long; it must be 1 to 128"),
        (replace(GOOD, ids=("",)), r"an entity id is 0 bytes long"),
        (replace(GOOD, ids=("S\x1f1",)), r"control character U\+001F"),
        (replace(GOOD, ids=("S1", "S2")), r"it has 2 ids; view 'plan' is keyed by subscriber"),
        (replace(GOOD, ids=()), r"it has 0 ids"),
        (replace(GOOD, event_time_ms=NOW_MS * 1_000), r"over an hour ahead.*like microseconds"),
        (replace(GOOD, event_time_ms=NOW_MS // 1_000), r"before the year 2000.*like seconds"),
        (
            replace(GOOD, event_time_ms=NOW_MS + HOUR_MS + 1),
            r"over an hour ahead; it is in",
        ),
        (replace(GOOD, event_time_ms=-1), r"is before the year 2000"),
        (replace(GOOD, event_time_ms=2**63 - 1), r"is over an hour ahead"),
        (replace(GOOD, numbers={"spent": 1.0}), r"no feature 'spent'; it has kind, spend, balance"),
        (replace(GOOD, numbers={"kind": 1.0}), r"'kind' is a category and was sent as a number"),
        (replace(GOOD, texts={"spend": "1"}), r"'spend' is a number and was sent as a text"),
        (replace(GOOD, texts={"subscriber": "1"}), r"has no feature 'subscriber'"),
        (replace(GOOD, numbers={"spend": math.nan}), r"'spend' is NaN; leave a feature out"),
        (replace(GOOD, numbers={"spend": -math.inf}), r"'spend' is -inf, which float32 cannot"),
        (replace(GOOD, numbers={"spend": 1e39, "balance": -1e39}), r"'spend' is 1e\+39"),
    ],
)
def test_bad_row_gets_one_sentence_that_names_it(bad: ReceivedRow, sentence: str) -> None:
    """The rows around it are good."""
    faults = find_faults([VIEW], [GOOD, bad, GOOD], NOW_MS)
    assert (faults[0], faults[2]) == ("", "")
    assert faults[1].startswith("row 2: ")
    assert "\n" not in faults[1]
    assert len(faults[1]) < 300
    assert re.search(sentence, faults[1]), faults[1]


@pytest.mark.parametrize(
    "good",
    [
        GOOD,
        replace(GOOD, ids=("S" * 128,), event_id="e" * 128),
        replace(GOOD, event_time_ms=NOW_MS + HOUR_MS),
        replace(GOOD, numbers={"spend": 3.4e38, "balance": -3.4e38}),
        replace(GOOD, numbers={}, texts={}),
        replace(GOOD, ids=("żółć",), event_id="ä" * 64, texts={"kind": "no such plan"}),
    ],
)
def test_row_at_the_bounds_is_good(good: ReceivedRow) -> None:
    """A category that the dictionary lacks is a value, and all features may be missing."""
    assert find_faults([VIEW], [good], NOW_MS) == [""]


def test_rows_are_encoded_as_every_other_row_is() -> None:
    """The bytes equal those of the encoder of features.encode, with missing and unknown values."""
    rows = [
        replace(GOOD, event_id=f"e{number}", numbers=numbers, texts=texts)
        for number, (numbers, texts) in enumerate(
            [
                ({"spend": 0.1, "balance": -0.0}, {"kind": "postpaid"}),
                ({"spend": 1_000.5}, {"kind": "satellite"}),
                ({}, {}),
                ({"balance": 1e-40}, {"kind": "prepaid"}),
            ]
        )
    ]
    pushed = [PushedRow(row.ids, row.event_time_ms, {**row.numbers, **row.texts}) for row in rows]
    values, valid = encode_columns(VIEW, pushed_columns(VIEW, pushed))
    expected = ViewRows(VIEW).pack([b"S1"] * 4, np.full(4, NOW_MS), values, valid)
    assert [row.packed for row in encode_rows(VIEW, rows, NOW_MS)] == expected
    decoded = ViewRows(VIEW).decode(expected, id_hashes([b"S1"] * 4), NOW_MS)
    assert decoded.values[0].tolist() == float32_array(1, 0.1, -0.0).tolist()


def test_row_older_than_two_ttls_is_stored_and_not_delivered() -> None:
    """Online it would count as never written."""
    ages = [0, 2 * DAY_MS, 2 * DAY_MS + 1]
    rows = [replace(GOOD, event_time_ms=NOW_MS - age) for age in ages]
    assert [row.is_deliverable for row in encode_rows(VIEW, rows, NOW_MS)] == [True, True, False]


def test_each_edition_takes_its_features() -> None:
    """A feature must be known to one edition at least, and be of one type in all."""
    newer = View(
        name="plan",
        entities=("subscriber",),
        features=(Feature(name="spend"), Feature(name="calls"), Feature(name="balance")),
        ttl_ms=DAY_MS,
        transform="SELECT * FROM source",
    )
    changed = replace(newer, features=(Feature(name="kind"),))
    row = replace(GOOD, numbers={"calls": 3.0, "spend": 2.0})
    assert find_faults([VIEW, newer], [row], NOW_MS) == [""]
    (encoded,) = encode_rows(newer, [row], NOW_MS)
    _, words, values = ViewRows(newer).unpack([encoded.packed])
    assert (words.tolist(), values.tolist()) == ([[0b011]], [[2.0, 3.0, 0.0]])
    (fault,) = find_faults([VIEW, changed], [GOOD], NOW_MS)
    assert "'kind' is a number in one edition of view 'plan' and a category in another" in fault
    (fault,) = find_faults([VIEW, wide_view(1)], [GOOD], NOW_MS)
    assert "view 'wide' is keyed by subscriber, offer, in this order" in fault


def test_received_row_has_what_the_message_has() -> None:
    """A feature that is sent as number and as text is of the wrong type once."""
    message = PushRow(
        event_id="e", ids=["S1"], event_time_ms=5, numbers={"spend": 1}, texts={"k": ""}
    )
    assert received_rows([message]) == [ReceivedRow("e", ("S1",), 5, {"spend": 1.0}, {"k": ""})]
    both = replace(GOOD, texts={"spend": "1"})
    assert "was sent as a text" in find_faults([VIEW], [both], NOW_MS)[0]
