"""Arguments and options that several commands take."""

import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from turnout.errors import UsageError
from turnout.views.pictures import check_drawing

FLOAT32_MAX = 3.4028234663852886e38
OLDEST_MS, NEWEST_MS = 10**11, 10**15
ID_CHARS_SHOWN = 160
"""Characters of a wrong prediction id that its refusal repeats."""

Model = Annotated[str, typer.Argument(help="The model's name.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; written into the history.")]
PolicyName = Annotated[
    str,
    typer.Option(
        help="Name of the rollout policy; `turnout rollout policies` lists them. Default: the "
        "model's default policy in its project, or else standard."
    ),
]

MonitoringAddress = Annotated[
    str,
    typer.Option(
        "--monitoring",
        help="host:port of monitoring, where it runs alone. Default: the registry's.",
    ),
]
GatewayHost = Annotated[
    str,
    typer.Option(
        "--host",
        help="Address that the gateway's gRPC server listens at. localhost: both 127.0.0.1 and "
        "::1. 0.0.0.0 or ::: other machines may call too.",
    ),
]
GatewayPort = Annotated[
    int, typer.Option("--port", min=0, max=65_535, help="Port of the gateway. 0: any free port.")
]
MetricsHost = Annotated[
    str,
    typer.Option(help="Address of /metrics and /healthz. Beyond this machine: with --identities."),
]
MetricsPort = Annotated[
    int, typer.Option(min=0, max=65_535, help="Port of /metrics and /healthz. 0: any free port.")
]


def parse_input(text: str) -> tuple[str, str]:
    """Read NAME=VALUE. UsageError when there is no name or no equals sign."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UsageError(f"{text!r} is not NAME=VALUE")
    return name, value


def float32_number(name: str, value: object) -> float:
    """Return the number of an input. ValueError or TypeError when it is none.

    Raises UsageError for a number beyond float32: models would get an infinite one.
    """
    number = float(value)  # type: ignore[arg-type]
    # float() makes the text 1e400 infinite, and so it is refused as 1e300 is.
    asked_infinite = "inf" in str(value).lower()
    if abs(number) > FLOAT32_MAX and not asked_infinite:
        raise UsageError(
            f"{name}={value}: models read float32, whose numbers end at {FLOAT32_MAX:.7g}; give a "
            "smaller one"
        )
    return number


def finite_number(name: str, value: object) -> float:
    """Return a number of a command line or of a file's cell. UsageError for any other value."""
    try:
        # JSON's true is no number, though Python has it as 1.
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{name} is {value!r}; it must be a finite number, such as 1")
    return number


def unix_ms(name: str, value: object) -> int:
    """Return the milliseconds of Unix time of a time; one without a zone is UTC.

    UsageError for a value that is none.
    """
    text = "" if isinstance(value, (bool, float)) else str(value).strip()
    try:
        if text.isdecimal():
            at_ms = int(text)
        else:
            at = datetime.fromisoformat(text)
            at_ms = round(1e3 * (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    except ValueError:
        at_ms = 0
    # Seconds instead of milliseconds would be some day of 1970.
    if not OLDEST_MS <= at_ms < NEWEST_MS:
        raise UsageError(
            f"{name} is {value!r}, which is no time since 1973; write 2026-11-30T12:00:00Z, or "
            "milliseconds of Unix time, which have 13 digits"
        )
    return at_ms


def parse_prediction_id(text: str) -> bytes:
    """Return the bytes of a prediction id. Raises UsageError for a text that is none."""
    from journal.prediction_id import LENGTH  # imports numpy

    try:
        identity = bytes.fromhex(text)
    except ValueError:
        identity = b""
    if len(identity) != LENGTH:
        shown = text if len(text) <= ID_CHARS_SHOWN else f"{text[:ID_CHARS_SHOWN]}..."
        raise UsageError(
            f"{shown!r} is no prediction id: it has {len(text)} characters, and an id has "
            f"{2 * LENGTH} hex digits, as `turnout predict` prints it"
        )
    return identity


def check_new_file(option: str, file: Path | None) -> None:
    """Raise UsageError unless *file* can be written. None is fine: no file was asked for.

    A command calls it before its first change and before its long work, so that a wrong path costs
    neither.
    """
    if file is None:
        return
    if file.is_dir():
        raise UsageError(f"{option} {file} is a folder; name a file in it")
    folder = file.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"{option} {file}: the folder {folder} does not exist; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {file}: you may not write to the folder {folder}")


def check_picture(option: str, file: Path | None) -> None:
    """Raise OperatorError unless a picture can be drawn to *file*. None is fine: there is none."""
    if file is not None:
        check_new_file(option, file)
        check_drawing(file)


def check_new_folder(option: str, folder: Path | None) -> None:
    """Raise UsageError unless the new folder can be made, with its parents. None is fine."""
    if folder is None:
        return
    if folder.exists():
        named = folder.name not in ("", "..")
        new = f"{folder}-2" if named else str(folder / "new-folder")
        raise UsageError(f"{option} {folder} exists already; name a new folder, such as {new}")
    # The nearest parent that is there takes the others.
    parent = next(parent for parent in folder.absolute().parents if parent.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise UsageError(
            f"{option} {folder}: {parent} is no folder in which you may write; name another place"
        )
