"""The bytes of segments that are cut or damaged anywhere."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.errors import RecordSizeError, SegmentDamagedError, SegmentError
from journal.reader import JournalReader
from journal.segment import (
    HEADER,
    RECORD_BYTES_MAX,
    JournalKind,
    SegmentName,
    check_header,
    check_payload,
    find_next_record,
    frame_record,
    intact_records,
    segment_header,
)
from journal.tape import SegmentWriter
from tests.property_examples import examples

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "journal_segment.json").read_text())
NAME = SegmentName(1_700_000_000_000, 0xABC, 0, JournalKind.SERVED)


def segment_bytes(payloads: list[bytes]) -> bytes:
    """Return the bytes of a whole segment with *payloads*."""
    return segment_header(JournalKind.SERVED) + b"".join(
        frame_record(payload) for payload in payloads
    )


def read_served(folder: Path) -> list[bytes]:
    """Return every payload of the folder's served segments."""
    return [payload for payload, _ in JournalReader(folder, JournalKind.SERVED)]


def recover_folder(folder: Path) -> list[SegmentDamagedError]:
    """Recover a folder as a writer does when it starts."""
    return SegmentWriter(folder, JournalKind.SERVED, 1 << 20, lambda: 0, boot_id=1).recover()


def test_segment_has_the_committed_bytes() -> None:
    """A reader in another language can rely on tests/vectors/journal_segment.json."""
    for vector in VECTORS:
        payloads = [bytes.fromhex(text) for text in vector["payloads"]]
        segment = segment_header(JournalKind(vector["kind"])) + b"".join(
            frame_record(payload) for payload in payloads
        )
        assert segment.hex() == vector["segment"]


def test_segment_names_are_ordered_by_age() -> None:
    """They are parsed from file names. Other file names are no segments."""
    later = SegmentName(1_700_000_000_001, 1, 0, JournalKind.SERVED)
    assert sorted([str(later), str(NAME)]) == [str(NAME), str(later)]
    assert SegmentName.parse(str(NAME)) == NAME
    assert SegmentName.parse("served-1.trnj") is None


@examples(40)
@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6), st.data())
def test_intact_records_of_a_cut_file_are_those_that_fit(
    payloads: list[bytes], data: st.DataObject
) -> None:
    """A crash can leave a file of any length."""
    content = segment_bytes(payloads)
    cut = data.draw(st.integers(HEADER.size, len(content)))
    intact, end = 0, HEADER.size
    while intact < len(payloads) and end + 8 + len(payloads[intact]) <= cut:
        end += 8 + len(payloads[intact])
        intact += 1

    records = list(intact_records(content[:cut], HEADER.size))

    assert [record.payload for record in records] == payloads[:intact]


def test_recover_cuts_a_torn_tail_of_any_length(tmp_path: Path) -> None:
    """The file then ends at its last intact record."""
    content = segment_bytes([b"one", b"twotwo", b"\x00" * 9])
    ends = [HEADER.size]
    ends += [record.end for record in intact_records(content, HEADER.size)]
    path = tmp_path / str(NAME)
    for cut in range(HEADER.size, len(content) + 1):
        path.write_bytes(content[:cut])
        assert recover_folder(tmp_path) == []
        assert path.stat().st_size == max(end for end in ends if end <= cut)


def test_recover_cuts_zeros_that_a_power_cut_left(tmp_path: Path) -> None:
    """Eight zero bytes are no record of length 0 with a matching CRC."""
    content = segment_bytes([b"one"])
    path = tmp_path / str(NAME)
    path.write_bytes(content + bytes(4096))

    assert read_served(tmp_path) == [b"one"]
    assert recover_folder(tmp_path) == []
    assert path.read_bytes() == content


@pytest.mark.parametrize("at", range(HEADER.size, HEADER.size + 11))
def test_recover_reports_damage_in_the_middle_and_changes_nothing(tmp_path: Path, at: int) -> None:
    """A flipped bit costs its record. It is reported once, and nothing is cut."""
    content = bytearray(segment_bytes([b"one", b"two", b"three"]))
    content[at] ^= 0x41
    path = tmp_path / str(NAME)
    path.write_bytes(content)

    [damage] = recover_folder(tmp_path)
    reader = JournalReader(tmp_path, JournalKind.SERVED)
    with pytest.raises(SegmentDamagedError, match="damaged from offset 16 to offset 27"):
        list(reader)

    assert (damage.offset, damage.next_offset) == (16, 27)
    assert [payload for payload, _ in reader] == [b"two", b"three"]
    assert path.read_bytes() == content


def test_find_next_record_searches_across_stretches() -> None:
    """A record can begin at the end of a stretch."""
    for gap in range((1 << 20) - 1, (1 << 20) + 5, 2):
        content = b"\xff" * gap + frame_record(b"found")
        assert find_next_record(content, 0) == gap


def test_reader_goes_on_from_its_offsets(tmp_path: Path) -> None:
    """A growing tail is no damage. The next iteration yields only newer records."""
    content = segment_bytes([b"one", b"two"])
    path = tmp_path / str(NAME)
    reader = JournalReader(tmp_path, JournalKind.SERVED)
    payloads = []
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        payloads += [payload for payload, _ in reader]

    assert payloads == [b"one", b"two"]
    assert list(JournalReader(tmp_path, JournalKind.SERVED, reader.offsets)) == []
    assert list(JournalReader(tmp_path, JournalKind.OUTCOMES)) == []
    assert list(JournalReader(tmp_path / "none", JournalKind.SERVED)) == []


def test_reader_refuses_a_file_that_is_no_segment(tmp_path: Path) -> None:
    """The message says how the file begins."""
    (tmp_path / str(NAME)).write_bytes(b"PK\x03\x04 not a segment")
    with pytest.raises(SegmentError, match="begins with"):
        read_served(tmp_path)
    with pytest.raises(SegmentError):
        check_header("x", segment_header(JournalKind.OUTCOMES), JournalKind.SERVED)


@pytest.mark.parametrize("size", [0, RECORD_BYTES_MAX + 1])
def test_check_payload_refuses_empty_and_oversized_payloads(size: int) -> None:
    """They are refused before they are queued."""
    with pytest.raises(RecordSizeError, match="must have 1 to"):
        check_payload(bytes(size))
