"""Lists of monitoring over real gRPC: pages, bounds and roles."""

import asyncio
from pathlib import Path

import grpc
import pytest

from monitoring.store.look_store import LookOutcome
from protos import monitoring_pb2 as pb
from tests.monitoring.monitoring_server import ServedMonitoring, monitoring_server
from tests.monitoring.stored import AT_S, DAY, raised_alarm, stored_figure

RATIO = stored_figure("selection ratio women", kind="fairness")


def store_a_look(served: ServedMonitoring) -> None:
    """Store figures of two kinds, and an alarm of each."""
    fair = raised_alarm("women", kind="fairness")
    served.looks.save_look(
        "churn",
        "7",
        "drift",
        DAY,
        LookOutcome(
            figures=(stored_figure(), stored_figure("auc", None, kind="quality"), RATIO),
            alarms=(raised_alarm(), fair),
            details={fair: {"ratio": 0.6}, raised_alarm(): {"psi": 0.4}},
            state={"unwatched": {"usage:calls": "not enough data"}},
        ),
    )


def test_readers_get_figures_without_those_of_fairness(tmp_path: Path) -> None:
    """Also when they ask for nothing else; an auditor gets all. A figure without a number says why.

    Alarms of fairness are shown to readers without their numbers.
    """

    async def course() -> None:
        async with monitoring_server(tmp_path) as served:
            await asyncio.to_thread(store_a_look, served)
            # A reader sees no figure of fairness, and a note says so.
            async with served.client("rita") as rita:
                found = await rita.figures(0)
                assert [item.kind for item in found] == ["drift", "quality"]
                assert (found[0].value, found[0].low, found[0].n) == (0.2, 0.1, 500)
                assert not found[1].HasField("value")
                assert found[1].lacking == "not enough data: 12 of 30 rows needed"
                assert await rita.figures(0, kind="fairness") == []
                alarms = await rita.alarms(AT_S, AT_S + 1)
                assert [(item.kind, item.details_json) for item in alarms] == [
                    ("features", '{"psi":0.4}'),
                    ("fairness", "{}"),
                ]
                (note,) = rita.notes
                assert "for the role auditor" in note
                looks = await rita.looks("churn")
                assert dict(looks.looks[0].unwatched) == {"usage:calls": "not enough data"}
            # An auditor sees all.
            async with served.client("aud") as aud:
                assert [item.name for item in await aud.figures(0, kind="fairness")] == [RATIO.name]
                assert (await aud.alarms(0))[1].details_json == '{"ratio":0.6}'
                assert aud.notes == []

    asyncio.run(course())


def test_pages_are_bounded_in_items_and_bytes(tmp_path: Path) -> None:
    """A client reads all of them, each figure once."""

    async def course() -> None:
        async with monitoring_server(tmp_path) as served:
            long = {"curve": "x" * 300_000}
            figures = [stored_figure(f"auc {number}", details=long) for number in range(9)]
            await asyncio.to_thread(served.looks.save_figures, figures)
            async with served.client("rita") as rita:
                page = await rita._call(rita._stub.GetFigures, pb.FiguresRequest())
                assert len(page.figures) == 4  # the fourth reaches 1 MiB
                request = pb.FiguresRequest(limit=2)
                assert len((await rita._call(rita._stub.GetFigures, request)).figures) == 2
                assert len({item.name for item in await rita.figures(0)}) == 9

    asyncio.run(course())


def test_empty_store_and_bad_requests(tmp_path: Path) -> None:
    """No data is an empty list. A foreign token and a role that may not read are refused."""

    async def course() -> None:
        async with monitoring_server(tmp_path) as served:
            async with served.client("rita") as rita:
                assert await rita.figures(0, model="nobody") == []
                assert await rita.alarms(0) == []
                assert list((await rita.looks()).looks) == []
                assert [cell async for cell in rita.cells(0)] == []
                request = pb.FiguresRequest(page_token="AAAA")
                with pytest.raises(grpc.aio.AioRpcError, match="page token is none") as refused:
                    await rita._call(rita._stub.GetFigures, request)
                assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            async with served.client("pia") as pia:
                with pytest.raises(grpc.aio.AioRpcError, match="GetFigures needs"):
                    await pia.figures(0)

    asyncio.run(course())
