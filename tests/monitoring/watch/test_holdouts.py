"""What the history says of holdouts."""

import json
from collections.abc import Sequence

import pytest

from monitoring.looks.uplift_look import ConfiguredHoldout
from monitoring.watch.holdouts import HoldoutHistory
from protos import registry_pb2 as pb

DAY = 20_787
DAY_MS = 86_400_000


def entry(day: float, share: int, action: str = "deploy") -> pb.HistoryEntry:
    """Return a deployment of churn with a holdout of *share* basis points."""
    return pb.HistoryEntry(
        at_unix_ms=int((DAY + day) * DAY_MS),
        action=action,
        object="model/churn/deployment",
        after=json.dumps({"production": "7", "holdout_bp": share, "holdout_salt": "5f" * 16}),
    )


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ([], None),
        ([(-9, 0)], None),
        ([(-9, 500)], ConfiguredHoldout(0.05, 1)),
        ([(-9, 500), (3, 500)], ConfiguredHoldout(0.05, 1)),
        ([(-9, 500), (3, 1_000)], ConfiguredHoldout(0.1, 2)),
        ([(-9, 500), (-5, 0)], None),
        ([(-9, 500), (40, 1_000)], ConfiguredHoldout(0.05, 1)),
        ([(3, 500)], ConfiguredHoldout(0.05, 1)),
    ],
)
def test_the_share_and_the_draws_of_a_period_are_known(
    changes: Sequence[tuple[float, int]], found: ConfiguredHoldout | None
) -> None:
    """Four weeks from day 0 on, with changes before, in and after them."""
    history = HoldoutHistory()
    for day, share in changes:
        history.note_entry(entry(day, share))
    history.note_entry(entry(1, 900, "apply project"))
    history.note_entry(pb.HistoryEntry(action="deploy", object="model/churn/deployment"))
    assert history.holdout_of("churn", DAY, DAY + 27) == found
    assert history.holdout_of("fraud", DAY, DAY + 27) is None
