"""Tests of escaping: what a terminal obeys is shown instead."""

import io
import logging
import sys
import unicodedata
from pathlib import Path

import pytest

from host.text import (
    CONTROL,
    EscapingFormatter,
    escape_all_but_line_breaks,
    escape_controls,
    in_utf8,
    read_fault,
)


def test_controls_become_escapes() -> None:
    """Text without controls stays as it is, also beyond ASCII."""
    assert escape_controls("\x1b[31mred\x9b\u202e\n\x00") == r"\x1b[31mred\x9b\u202e\x0a\x00"
    assert escape_all_but_line_breaks("one\n\x1b[2Jtwo\r") == "one\n\\x1b[2Jtwo\\x0d"
    assert escape_controls("Zürich, 東京 😀") == "Zürich, 東京 😀"


def test_every_control_and_bidi_mark_is_escaped() -> None:
    """Unicode's own tables say which characters these are."""
    bidi = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        category = unicodedata.category(character)
        obeyed = category in ("Cc", "Zl", "Zp") or unicodedata.bidirectional(character) in bidi
        if obeyed:
            assert CONTROL.fullmatch(character), f"U+{code:04X}"


def test_argument_of_a_locale_without_its_letters_is_read_as_utf8() -> None:
    """Python gives the bytes of other letters as surrogates, which nothing can print or send."""
    assert in_utf8("größer".encode().decode("ascii", "surrogateescape")) == "größer"
    assert in_utf8("größer") == "größer"
    assert in_utf8(b"\xff".decode("ascii", "surrogateescape")) == "\ufffd"


@pytest.mark.parametrize("with_traceback", [False, True])
def test_log_message_is_one_line(with_traceback: bool) -> None:
    """A line break in a message makes no second line; a traceback keeps its lines."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(EscapingFormatter("%(name)s %(message)s"))
    log = logging.Logger("test")
    log.addHandler(handler)
    error = ValueError("\x1b[2J") if with_traceback else None
    log.error("guard %s", "red\x1b[31m\nroot: forged", exc_info=error)
    lines = stream.getvalue().splitlines()
    assert lines[0] == r"test guard red\x1b[31m\x0aroot: forged"
    assert lines[1:] == ([r"ValueError: \x1b[2J"] if with_traceback else [])


def test_fault_of_a_file_is_in_words(tmp_path: Path) -> None:
    """No number of an error and no name of a codec; the caller names the file."""
    (tmp_path / "latin").write_bytes(b"Z\xfcrich")
    faults = []
    for path in (tmp_path / "none", tmp_path, tmp_path / "latin"):
        with pytest.raises((OSError, UnicodeDecodeError)) as raised:
            path.read_text(encoding="utf-8")
        faults.append(read_fault(raised.value))
    assert faults == ["no such file or directory", "is a directory", "byte 2 is no text in UTF-8"]
