"""What tests of calls that the I/O thread answers have in common."""

from typing import Any

import pytest

from gateway.transport.native.server import NativeServer


@pytest.fixture
def answered_here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the rows of each group that the I/O thread answers at once."""
    groups = list[int]()
    take_records = NativeServer.take_records

    def take(server: NativeServer) -> Any:  # noqa: ANN401
        records = take_records(server)
        for record in records:
            assert sum(record.group_rows) == record.rows
            groups.extend(record.group_rows)
        return records

    monkeypatch.setattr(NativeServer, "take_records", take)
    return groups
