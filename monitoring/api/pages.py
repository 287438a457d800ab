"""Answers the lists of turnout.v1.Monitoring: figures, alarms, looks and cells.

Every role that reads may ask. Figures of fairness are for auditors: they say how groups of people
are treated, some of them small. Others get the other figures, and a note that says so.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from typing import TypeVar

from access.bounds import PAGE_BYTES_MAX
from access.identities import AUDITOR, Identity
from features.canonical import canonical_json
from monitoring.store.look_store import StoredAlarm, StoredFigure
from monitoring.store.pages import INT_MAX, CellRow, LookRow, PageStore
from protos import monitoring_pb2 as pb

FAIRNESS = "fairness"
"""The kind of figures and alarms that only auditors see whole."""
ITEMS_A_PAGE = 500
ITEMS_A_PAGE_MAX = 5_000
CELLS_A_PAGE_MAX = 1_000
"""A cell is read with all its bins, of which a page has the totals only."""
NOTE = (
    f"figures of {FAIRNESS} are left out, because they are for the role {AUDITOR}; a token with "
    "that role sees them"
)

Item = TypeVar("Item")
Message = TypeVar(
    "Message", pb.FigureOfPeriod, pb.RaisedAlarm, pb.LookProgress, pb.CellTotals, covariant=False
)


class ListPages:
    """Makes the pages. What is asked for beyond the bounds of a page comes in the next one."""

    def __init__(self, store: PageStore) -> None:
        self._store = store

    def figures(self, request: pb.FiguresRequest, identity: Identity) -> pb.FiguresPage:
        """Return a page of figures; without those of fairness if the caller is no auditor."""
        hidden = AUDITOR not in identity.roles
        limit = _limit(request.limit)
        found = self._store.figures(
            request.since_day,
            request.until_day or INT_MAX,
            model=request.model,
            kind=request.kind,
            name=request.name,
            version=request.version,
            newest=request.newest,
            without=(FAIRNESS,) if hidden else (),
            token=request.page_token,
            limit=limit,
        )
        items, token = _page(found, _figure_message, limit)
        return pb.FiguresPage(figures=items, next_page_token=token, note=NOTE if hidden else "")

    def alarms(self, request: pb.AlarmsRequest, identity: Identity) -> pb.AlarmsPage:
        """Return a page of alarms. Those of fairness have their numbers for auditors only."""
        hidden = AUDITOR not in identity.roles
        limit = _limit(request.limit)
        found = self._store.alarms(
            request.since_unix_s,
            request.until_unix_s or INT_MAX,
            model=request.model,
            token=request.page_token,
            limit=limit,
        )

        def message(stored: StoredAlarm) -> pb.RaisedAlarm:
            return _alarm_message(stored, hidden=hidden)

        items, token = _page(found, message, limit)
        return pb.AlarmsPage(alarms=items, next_page_token=token, note=NOTE if hidden else "")

    def looks(self, request: pb.LooksRequest) -> pb.LooksPage:
        """Return a page of looks, and with the first one the accepted references."""
        limit = _limit(request.limit)
        found = self._store.looks(model=request.model, token=request.page_token, limit=limit)
        items, token = _page(found, _look_message, limit)
        references = [] if request.page_token else self._store.references(model=request.model)
        return pb.LooksPage(
            looks=items,
            next_page_token=token,
            references=[
                pb.ReferenceDays(
                    model=item.model,
                    version=item.version,
                    finding=item.finding,
                    first_day=item.first_day,
                    last_day=item.last_day,
                )
                for item in references
            ],
        )

    def cells(self, request: pb.CellsRequest) -> pb.CellsPage:
        """Return a page of the totals of cells."""
        limit = min(_limit(request.limit), CELLS_A_PAGE_MAX)
        found = self._store.cells(
            request.since_hour,
            request.until_hour or INT_MAX,
            model=request.model,
            token=request.page_token,
            limit=limit,
        )
        items, token = _page(found, _cell_message, limit)
        return pb.CellsPage(cells=items, next_page_token=token)


def _limit(asked: int) -> int:
    return min(asked or ITEMS_A_PAGE, ITEMS_A_PAGE_MAX)


def _page(
    found: Generator[tuple[Item, str]], message_of: Callable[[Item], Message], limit: int
) -> tuple[list[Message], str]:
    """Return the messages of a page, and the token of the next one; empty: it is the last."""
    messages: list[Message] = []
    size = 0
    # Closing ends the transaction of what is read no further.
    with closing(found) as rows:
        for item, token in rows:
            messages.append(message_of(item))
            size += messages[-1].ByteSize()
            if len(messages) == limit or size >= PAGE_BYTES_MAX:
                return messages, token
    return messages, ""


def _figure_message(stored: StoredFigure) -> pb.FigureOfPeriod:
    figure = stored.figure
    return pb.FigureOfPeriod(
        model=stored.model,
        version=stored.version,
        kind=stored.kind,
        name=stored.name,
        segment=stored.segment,
        last_day=stored.last_day,
        days=stored.days,
        value=figure.value,
        low=figure.low,
        high=figure.high,
        n=figure.n,
        lacking=figure.lacking,
        details_json=canonical_json(dict(stored.details)).decode(),
    )


def _alarm_message(stored: StoredAlarm, *, hidden: bool) -> pb.RaisedAlarm:
    alarm = stored.alarm
    details = {} if hidden and alarm.kind == FAIRNESS else dict(stored.details)
    return pb.RaisedAlarm(
        number=stored.number,
        model=alarm.model,
        version=alarm.version,
        kind=alarm.kind,
        stream=alarm.stream,
        view=alarm.view,
        host=alarm.host,
        shadow=alarm.shadow,
        at_unix_s=alarm.at,
        since_unix_s=alarm.since,
        incident_id=stored.incident_id,
        details_json=canonical_json(details).decode(),
        severity=alarm.severity,
    )


def _look_message(row: LookRow) -> pb.LookProgress:
    return pb.LookProgress(
        model=row.model,
        version=row.version,
        name=row.name,
        position=row.position,
        until_unix_s=row.until_unix_s,
        unwatched=row.unwatched,
    )


def _cell_message(row: CellRow) -> pb.CellTotals:
    return pb.CellTotals(
        model=row.model,
        version=row.version,
        role=row.role,
        holdout=row.holdout,
        segment=row.segment,
        hour=row.hour,
        hours=row.hours,
        calls=row.calls,
        rows=row.rows,
        row_flags=row.row_flags,
    )
