"""What looks have stored of a running system: figures and alarms of version 1 of `tiny`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from monitoring.store.database import MonitoringDatabase
from monitoring.store.look_store import LookOutcome, LookStore, StoredFigure
from tests.monitoring.stored import raised_alarm, stored_figure
from tests.walks.conftest import MODEL
from tests.walks.running_system import RunningSystem

DAY_S = 86_400


def yesterday() -> int:
    """Return the Unix day before today."""
    return int(time.time()) // DAY_S - 1


@contextmanager
def stores_of(system: RunningSystem) -> Iterator[LookStore]:
    """Open the database of a running system beside its control process."""
    database = MonitoringDatabase(f"sqlite:///{system.folder}/monitoring/monitoring.sqlite")
    yield LookStore(database)
    database.close()


def figures_of_week() -> list[StoredFigure]:
    """Return figures of each kind, of the days up to yesterday."""
    last = yesterday()
    figure = partial(stored_figure, model=MODEL, version="1")

    def psi(stream: str, value: float, day: int) -> StoredFigure:
        details = {"stream": stream, "against": "training", "size": "small"}
        return figure(f"psi {stream} against training", value, last_day=day, details=details)

    days = range(last - 6, last + 1)
    budget = {"allowed": 0.05, "detectors": 6, "seen": 1}
    return [
        *(psi("score", 0.02 + day % 3 / 50, day) for day in days),
        *(psi("f0", 0.30, day) for day in days),
        figure("auc churned", 0.71, kind="quality", last_day=last, days=7),
        figure("auc churned", None, kind="estimate", last_day=last),
        figure("effect churned", 0.02, kind="uplift", last_day=last, days=28),
        figure("selection ratio women", 0.9, kind="fairness", last_day=last, days=7),
        figure("rows counted of rows scored", 0.98, kind="coverage", last_day=last),
        figure("score", 0.04, kind="budget", last_day=last, details=budget),
    ]


def store_a_week(system: RunningSystem) -> None:
    """Store the figures, an alarm with an incident, and how far the look is. Once or twice."""
    with stores_of(system) as store:
        store.save_figures(figures_of_week())
        alarm = raised_alarm("f0", model=MODEL, version="1", at=yesterday() * DAY_S + 1)
        state = {"unwatched": {"f1": "not enough data: 40 of 100 rows"}}
        outcome = LookOutcome(alarms=(alarm,), state=state)
        store.save_look(MODEL, "1", "stored", yesterday(), outcome)
        # It has an incident, so that the looks of the system open none for it.
        store.note_incident([item.number for item in store.unreported_alarms()], "5f2a91c0")


def store_days_with_rows(
    system: RunningSystem, days: int, model: str = MODEL, last: int | None = None
) -> None:
    """Store what daily looks store of *days* days with rows, up to *last*. Once or twice.

    last  Unix day; None: yesterday.
    """
    last = yesterday() if last is None else last
    with stores_of(system) as store:
        store.save_figures(
            [
                stored_figure("missing score", 0.0, model=model, version="1", last_day=day)
                for day in range(last - days + 1, last + 1)
            ]
        )
