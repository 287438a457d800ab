"""`turnout monitor accept`: a person says which days of production are the normal ones."""

import asyncio
import datetime as dt
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated

import typer

from features.canonical import canonical_json
from host.clock import DAY_S
from turnout.cli import clients
from turnout.cli.arguments import Model, MonitoringAddress
from turnout.cli.context import CommandContext
from turnout.errors import OperatorError, UsageError
from turnout.views.json_values import message_to_json
from turnout.views.terminal import terminal

if TYPE_CHECKING:
    from monitoring.client import MonitoringClient
    from protos import registry_pb2 as pb

REFERENCE = "reference"
"""Kind of the finding that says which days were accepted."""
DAYS_MIN, DAYS_MAX = 14, 90
"""Two weeks have each weekday twice, and longer than a season the normal days are not alike."""
EPOCH = dt.date(1970, 1, 1)
REASON_CHARS_MAX = 1_000
WEEKDAYS = 7
DRIFT = "drift"
COUNTED = "missing score"
"""The figure of drift that each daily look stores. Its n is the number of people of the day."""


def accept_reference(
    ctx: typer.Context,
    model: Model,
    version: Annotated[str, typer.Argument(help="The version's label.")],
    days: Annotated[
        str, typer.Option(help="First and last day, such as 2026-11-01..2026-11-14, in UTC.")
    ],
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why these days are normal.")],
    monitoring: MonitoringAddress = "",
) -> None:
    """Accept days of production as the reference of a version, which drift is compared with.

    Until then looks compare with the training data, with a wide tolerance. It is written into the
    history, and needs the rights of people who deploy. At least 14 of the days have rows.
    """
    # Refuse what cannot be a reference before anything is asked.
    context: CommandContext = ctx.obj
    first_day, last_day = accepted_days(days, int(time.time()) // DAY_S)
    if not reason.strip() or len(reason) > REASON_CHARS_MAX:
        raise UsageError(f"--reason needs 1 to {REASON_CHARS_MAX} characters that say why")

    # The registry says whether there is such a version, and who may write; monitoring has its rows.
    async def write() -> "pb.Finding":
        from protos import registry_pb2 as pb

        text = {"first_day": first_day, "last_day": last_day, "reason": reason}
        async with clients.open_registry(context) as client:
            found = await client.get_version(model, version)
            async with clients.open_monitoring(context, monitoring) as watching:
                seen = await days_with_rows(watching, model, found.label, first_day, last_day)
            check_enough(f"{model} {found.label}", seen)
            return await client.write_finding(
                pb.Finding(
                    model=model,
                    version=found.label,
                    kind=REFERENCE,
                    text=canonical_json(text).decode(),
                )
            )

    # What was written is shown as the history has it.
    written = asyncio.run(write())
    screen = terminal(context.json)
    screen.result(
        {**message_to_json(written), "first_day": first_day, "last_day": last_day},
        f"Accepted: {days} is the reference of {model} {written.version} (finding "
        f"{written.sequence}).",
    )
    screen.hint(
        f"The next daily look compares {model} {written.version} with these days, and its "
        "detectors start anew."
    )


def accepted_days(text: str, today: int) -> tuple[int, int]:
    """Return the first and the last Unix day of a range such as 2026-11-01..2026-11-14.

    today  as a Unix day; it is not over, so it cannot be part of the range.

    Raises UsageError.
    """
    first_text, dots, last_text = text.partition("..")
    try:
        first, last = (
            (dt.date.fromisoformat(part.strip()) - EPOCH).days for part in (first_text, last_text)
        )
    except ValueError:
        dots = ""
    if not dots:
        raise UsageError(
            f"--days {text!r} is no range of days; write FIRST..LAST, such as "
            "2026-11-01..2026-11-14"
        )
    number = last - first + 1
    if last >= today:
        newest = EPOCH + dt.timedelta(days=today - 1)
        raise UsageError(f"--days {text}: {last_text} is not over; the last day may be {newest}")
    if not DAYS_MIN <= number <= DAYS_MAX:
        raise UsageError(
            f"--days {text}: these are {number} days; a reference has {DAYS_MIN} to {DAYS_MAX}"
        )
    return first, last


async def days_with_rows(
    client: "MonitoringClient", model: str, version: str, first_day: int, last_day: int
) -> set[int]:
    """Return the Unix days in [first_day, last_day] on which a daily look counted people."""
    found = await client.figures(
        first_day, last_day + 1, model=model, version=version, kind=DRIFT, name=COUNTED
    )
    return {figure.last_day for figure in found if figure.days == 1 and figure.n > 0}


def check_enough(shown: str, days: Collection[int]) -> None:
    """Raise OperatorError unless the days with rows can be a reference of *shown*, a version."""
    weekdays = len({day % WEEKDAYS for day in days})
    if len(days) >= DAYS_MIN and weekdays == WEEKDAYS:
        return
    lacking = "" if weekdays == WEEKDAYS else f", on {weekdays} of {WEEKDAYS} weekdays"
    raise OperatorError(
        f"not enough data: daily looks counted rows of {shown} on {len(days)} of the {DAYS_MIN} "
        f"days that a reference needs{lacking}. Name days on which it served, or wait until it "
        "served on so many; turnout monitor status shows what is counted"
    )
