"""Tests of the editions that are served."""

import asyncio
from dataclasses import replace

import pytest

from features.push.view_editions import (
    ServedViews,
    UnknownViewError,
    ViewEditions,
    ViewsNotReadError,
)
from features.views import View
from host.clock import ManualClock
from tests.features.small_views import plan_view

OLDER, NEWER = plan_view(), plan_view(ttl_ms=5)


def test_push_goes_to_every_edition_or_to_the_one_that_is_named() -> None:
    """Sixteen digits of the hash name one, fewer none."""

    async def read() -> ServedViews:
        return ServedViews("system", (OLDER, NEWER))

    async def run() -> None:
        editions = ViewEditions(read, ManualClock())
        await editions.read_again()
        assert await editions.find("plan", "") == [OLDER, NEWER]
        assert await editions.find("plan", NEWER.view_hash[:16]) == [NEWER]
        assert await editions.find("plan", NEWER.view_hash) == [NEWER]
        for view_hash in (NEWER.view_hash[:15], "0" * 16):
            with pytest.raises(UnknownViewError, match=r"no edition of view 'plan' has the hash"):
                await editions.find("plan", view_hash)
        with pytest.raises(UnknownViewError, match=r"no view is called 'plam'; there are plan\."):
            await editions.find("plam", "")

    asyncio.run(run())


def test_view_that_was_applied_a_moment_ago_is_read_at_once() -> None:
    """Names that are not known cause one read a second, and a gone registry takes no view."""
    clock, slept = ManualClock(), list[float]()
    wide = replace(NEWER, name="wide")
    answers: list[ServedViews | None] = [
        None,
        ServedViews("system", (OLDER,)),
        ServedViews("system", (OLDER, wide)),
        None,
    ]

    async def read() -> ServedViews | None:
        return answers.pop(0)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance_s(seconds)

    async def names(editions: ViewEditions, name: str) -> list[View]:
        return list(await editions.find(name, ""))

    async def run() -> None:
        editions = ViewEditions(read, clock, sleep)
        clock.advance_s(5.0)
        await editions.read_again()
        clock.advance_s(0.25)
        assert await names(editions, "plan") == [OLDER]
        # Calls that wait for the same read share it.
        clock.advance_s(0.25)
        calls = [editions.find("wide", "") for _ in range(3)]
        found = await asyncio.gather(*calls)
        assert (found, slept) == ([[wide]] * 3, [0.75, 0.75])
        clock.advance_s(3.0)
        # What was read last stays where nothing can be read.
        with pytest.raises(UnknownViewError, match=r"no view is called 'else'; there are plan, w"):
            await editions.find("else", "")
        assert await names(editions, "wide") == [wide]
        assert (answers, slept[2:]) == ([], [0.0])

    asyncio.run(run())


def test_views_that_were_never_read_are_no_unknown_names() -> None:
    """A caller learns that it should call again."""

    async def read() -> None:
        return None

    async def run() -> None:
        editions = ViewEditions(read, ManualClock())
        with pytest.raises(ViewsNotReadError, match="registry does not answer"):
            await editions.find("plan", "")

    asyncio.run(run())
