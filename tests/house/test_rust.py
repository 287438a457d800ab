"""Rust files keep the bounds of Python files, and only ingress/src/sys has unsafe code."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.house.sources import REPOSITORY, fail_on_breaches, location

FILE_LINES_MAX = 700
FILE_LINES_WITHOUT_REASON = 400
LONG_FILES = {
    "ingress/src/accel/onnx_trees.rs": "Reading, checking and walking share one set of types.",
    "ingress/src/calls/infer.rs": "Parsing and checking ModelInfer share one set of types.",
    "ingress/src/http2/stream_events.rs": "All callbacks of a stream stand in one place.",
}
"""Files above FILE_LINES_WITHOUT_REASON, and why each of them is one file."""

WRITTEN = sorted(
    path
    for crate in ("ingress", "benchmarks/loadgen")
    for path in (REPOSITORY / crate).rglob("*.rs")
    if "target" not in path.parts
)
SYS = REPOSITORY / "ingress" / "src" / "sys"
UNSAFE = re.compile(r"^(?!\s*//).*\bunsafe\b")


def lines_of(path: Path) -> int:
    """Return the number of lines of a file."""
    return path.read_text(encoding="utf-8").count("\n")


def lines_max(path: Path) -> int:
    """Return how many lines a file may have."""
    return FILE_LINES_MAX if location(path) in LONG_FILES else FILE_LINES_WITHOUT_REASON


def test_rust_files_above_400_lines_are_listed_with_a_reason() -> None:
    """A file has at most 700 lines, and above 400 lines it is in LONG_FILES."""
    assert len(WRITTEN) > 20
    fail_on_breaches(
        [
            f"{location(path)}: {lines_of(path)} lines, {most} at most"
            for path in WRITTEN
            for most in [
                FILE_LINES_MAX if location(path) in LONG_FILES else FILE_LINES_WITHOUT_REASON
            ]
            if lines_of(path) > most
        ]
    )
    fail_on_breaches(
        [
            f"{name}: not above {FILE_LINES_WITHOUT_REASON} lines; take it out of LONG_FILES"
            for name in LONG_FILES
            if lines_of(REPOSITORY / name) <= FILE_LINES_WITHOUT_REASON
        ]
    )


IMPORTS = {
    "sys": {"sys"},
    "calls": {"sys", "calls"},
    "accel": {"sys", "calls", "accel"},
    "http2": {"sys", "calls", "http2"},
    "io_thread": {"sys", "calls", "http2", "io_thread"},
    "python": {"sys", "calls", "accel", "http2", "io_thread", "python"},
}
"""Each folder of ingress/src, and the folders that it may import."""


def test_rust_folders_import_each_other_in_one_direction() -> None:
    """A folder of ingress/src imports only the folders that IMPORTS gives it."""
    source = REPOSITORY / "ingress" / "src"
    used = re.compile(r"\bcrate::(\w+)")
    fail_on_breaches(
        [
            f"{location(path, number)}: {folder} imports {found}; it may import {sorted(allowed)}"
            for folder, allowed in IMPORTS.items()
            for path in sorted((source / folder).rglob("*.rs"))
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            for found in used.findall(line)
            if found not in allowed
        ]
    )


def test_rust_unsafe_code_is_in_one_folder() -> None:
    """Only ingress/src/sys has `unsafe`, and clippy asks for the reason of each block."""
    fail_on_breaches(
        [
            f"{location(path, number)}: unsafe outside of ingress/src/sys"
            for path in WRITTEN
            if SYS not in path.parents
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            if UNSAFE.match(line)
        ]
    )
    lints = (REPOSITORY / "ingress" / "Cargo.toml").read_text(encoding="utf-8")
    assert 'undocumented_unsafe_blocks = "warn"' in lints


@pytest.mark.nightly  # the first time builds every crate: a minute
@pytest.mark.skipif(shutil.which("cargo") is None, reason="cargo is not there")
@pytest.mark.parametrize(
    "command",
    [
        ["clippy", "--release", "--all-targets", "--", "-D", "warnings"],
        ["fmt", "--check"],
        ["test", "--release", "--no-default-features"],
    ],
    ids=lambda command: command[0],
)
def test_the_crate_passes_clippy_rustfmt_and_its_own_tests(command: list[str]) -> None:
    """Clippy and rustfmt report nothing, and the crate's own tests pass."""
    done = subprocess.run(
        ["cargo", *command],
        cwd=REPOSITORY / "ingress",
        env={**os.environ, "CARGO_TARGET_DIR": str(REPOSITORY / "target" / "ingress")},
        capture_output=True,
        text=True,
    )
    if "no such command" in done.stderr:
        pytest.skip(f"cargo {command[0]} is not installed")
    assert done.returncode == 0, done.stdout + done.stderr
