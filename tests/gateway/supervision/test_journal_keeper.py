"""The supervisor keeps the journal's bounds, and shows it in its metrics."""

import asyncio
import os
from pathlib import Path

import pytest

from journal.segment import JournalKind, segment_header
from tests.gateway.supervision.test_supervisor import running_gateway, wait_until

pytestmark = pytest.mark.walk


def test_supervisor_deletes_old_journal_segments_and_counts_them(tmp_path: Path) -> None:
    """With journal_days_max alone, at the first look; the metrics have no label `worker`."""
    journal = tmp_path / "journal"
    journal.mkdir()
    old = journal / "served-1600000000000-0000000000000001-000000.trnj"
    old.write_bytes(segment_header(JournalKind.SERVED))
    os.utime(old, (1.6e9, 1.6e9))

    async def walk() -> None:
        async with running_gateway(tmp_path, journal_days_max=30) as gateway:
            await wait_until(lambda: gateway.supervisor.report.segments_deleted)
            _, text = await gateway.page("/metrics")
            deleted = 'turnout_journal_segments_deleted_total{cause="age",kind="served"} 1.0'
            assert deleted in text.splitlines()
            assert "turnout_journal_days_left 30.0" in text.splitlines()
            assert 'turnout_journal_bytes{kind="served"} 0.0' in text.splitlines()

    asyncio.run(walk())
    assert not old.exists()
