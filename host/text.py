"""Text of others, made safe for a terminal and for a log: control characters become escapes.

A terminal obeys control characters: they move the cursor, change the title and hide text. A bidi
mark reverses the order in which text is shown, so that it reads as something else. A line break in
a log message makes a line that no program wrote.
"""

import logging
import os
import re
import sys

CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
"""C0, DEL, C1, bidi marks, and the line and paragraph separators."""

_CONTROL_IN_LINES = re.compile(rf"(?!\n){CONTROL.pattern}")


def escape_controls(text: str) -> str:
    r"""Return *text* with each control character as an escape, such as \x1b or \u202e."""
    return text if text.isprintable() else CONTROL.sub(_escape, text)


def escape_all_but_line_breaks(text: str) -> str:
    """Return *text* as `escape_controls` does, with its line breaks as they are."""
    return text if text.isprintable() else _CONTROL_IN_LINES.sub(_escape, text)


def escape_controls_in_json(text: str) -> str:
    """Return a JSON text with the escapes of JSON for the controls that its strings have."""
    return _CONTROL_IN_LINES.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def in_utf8(argument: str) -> str:
    """Return an argument of the command line as UTF-8 has it.

    In a locale without its letters, Python gives each of its bytes as a surrogate.
    """
    try:
        argument.encode()
    except UnicodeEncodeError:
        return os.fsencode(argument).decode(errors="replace")
    return argument


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class EscapingFormatter(logging.Formatter):
    """Formats log records so that a message is one line. A traceback keeps its own lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the base class's name
        """Return the line of *record*, escaped."""
        return escape_controls(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802  the base class's name
        """Return the traceback, escaped line by line."""
        return escape_all_but_line_breaks(super().formatException(ei))  # type: ignore[arg-type]


def log_to_stderr(line_format: str) -> None:
    """Make this process log to stderr from INFO on, in the format of the logging module."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EscapingFormatter(line_format))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def read_fault(error: OSError | UnicodeError) -> str:
    """Return why a file could not be read as text, in words and without numbers of errors.

    >>> read_fault(FileNotFoundError(2, "No such file or directory"))
    'no such file or directory'
    """
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start + 1} is no text in UTF-8"
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return reason[:1].lower() + reason[1:]
