"""Rust files: where `unsafe` may be, what doc comments say, and clippy, rustfmt and cargo test."""

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.known import Breach, fail_on_new_breaches
from tests.house.sources import (
    REPOSITORY,
    RUST_CRATES,
    RUST_FILES,
    docstring_fault,
    fail_on_breaches,
)

SYS = REPOSITORY / "ingress" / "src" / "sys"
UNSAFE = re.compile(r"^(?!\s*//).*\bunsafe\b")
DOC_COMMENT = re.compile(r"^\s*//[/!] ?(.*)$")


def test_rust_unsafe_code_is_in_one_folder() -> None:
    """`unsafe` in ingress/src/sys/ alone, each block beside its reason; clippy looks at those."""
    fail_on_breaches(
        [
            f"{path.relative_to(REPOSITORY)}:{number}: unsafe outside of ingress/src/sys"
            for path in RUST_FILES
            if SYS not in path.parents
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            if UNSAFE.match(line)
        ]
    )
    lints = (REPOSITORY / "ingress" / "Cargo.toml").read_text(encoding="utf-8")
    assert 'undocumented_unsafe_blocks = "warn"' in lints


@pytest.mark.parametrize("folder", RUST_CRATES)
def test_crates_are_locked_with_checksums_and_without_addresses(folder: str) -> None:
    """Cargo.lock names a package registry; crates.lock is the same without that."""
    text = (REPOSITORY / folder / "crates.lock").read_text(encoding="utf-8")
    crate = tomllib.loads((REPOSITORY / folder / "Cargo.toml").read_text(encoding="utf-8"))
    assert "://" not in text
    packages = tomllib.loads(text)["package"]
    own = crate["package"]["name"]
    fail_on_breaches(
        [item["name"] for item in packages if "checksum" not in item and item["name"] != own]
    )
    # A version may name that of the library that it wraps: 0.1.13+1.68.1.
    locked = {(item["name"], item["version"].partition("+")[0]) for item in packages}
    for name, wanted in (crate["dependencies"] | crate.get("dev-dependencies", {})).items():
        version = wanted if isinstance(wanted, str) else wanted["version"]
        assert (name, version.removeprefix("=")) in locked, f"{name} {version}: run `make crates`"


@pytest.mark.walk
@pytest.mark.skipif(shutil.which("cargo") is None, reason="cargo is not installed")
@pytest.mark.parametrize("folder", RUST_CRATES)
def test_cargo_lock_is_made_from_the_locked_crates(folder: str) -> None:
    """`make` writes Cargo.lock from crates.lock, and cargo has nothing to add to it."""
    subprocess.run(["make", "--silent", f"{folder}/Cargo.lock"], cwd=REPOSITORY, check=True)
    subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version=1", "--quiet"],
        cwd=REPOSITORY / folder,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    lock = (REPOSITORY / folder / "Cargo.lock").read_text(encoding="utf-8").splitlines()
    committed = (REPOSITORY / folder / "crates.lock").read_text(encoding="utf-8").splitlines()
    assert [line for line in lock if not line.startswith("source = ")] == committed


def test_rust_doc_comment_says_something() -> None:
    """Each block of `///` or `//!` is held to the rule for Python's docstrings."""
    assert len(RUST_FILES) > 20
    fail_on_new_breaches(
        "doc comments",
        (
            Breach(crate, f"{path.relative_to(REPOSITORY)}:{line}: {text[:60]!r}: {fault}")
            for crate in RUST_CRATES
            for path in RUST_FILES
            if (REPOSITORY / crate) in path.parents
            for line, text in _doc_comments(path)
            if (fault := docstring_fault(text))
        ),
    )


def _doc_comments(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each block of doc comments in *path*."""
    block: list[str] = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate([*lines, ""], start=1):
        found = DOC_COMMENT.match(line)
        if found:
            block.append(found[1])
        elif block:
            yield number - len(block), "\n".join(block).strip()
            block = []


IMPORTS = {
    "sys": {"sys"},
    "calls": {"sys", "calls"},
    "accel": {"sys", "calls", "accel"},
    "http2": {"sys", "calls", "http2"},
    "io_thread": {"sys", "calls", "accel", "http2", "io_thread"},
    "python": {"sys", "calls", "accel", "http2", "io_thread", "python"},
}
"""Each folder of ingress/src, and the folders that it may import."""

CRATE_IMPORT = re.compile(r"\bcrate::(\w+)")


def test_rust_folders_import_in_one_direction() -> None:
    """A folder of ingress/src imports only the folders that IMPORTS gives it."""
    fail_on_new_breaches(
        "imports of Rust folders",
        (
            Breach(
                folder,
                f"{path.relative_to(REPOSITORY)}:{number}: {folder} may import {sorted(allowed)}, "
                f"not {imported}",
            )
            for folder, allowed in IMPORTS.items()
            for path in sorted((REPOSITORY / "ingress" / "src" / folder).rglob("*.rs"))
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            for imported in CRATE_IMPORT.findall(line)
            if imported not in allowed
        ),
    )


@pytest.mark.skipif(shutil.which("cargo") is None, reason="cargo is not there")
@pytest.mark.parametrize(
    "command",
    [
        # `make check` runs clippy, which compiles tests and benchmarks too. `make unit` need not.
        pytest.param(
            ["clippy", "--release", "--all-targets", "--", "-D", "warnings"], marks=pytest.mark.walk
        ),
        ["fmt", "--check"],
        # The first time builds every crate: a minute.
        pytest.param(["test", "--release", "--no-default-features"], marks=pytest.mark.nightly),
    ],
    ids=lambda command: command[0],
)
def test_native_library_passes_its_own_checks(command: list[str]) -> None:
    """Clippy and rustfmt find nothing, and cargo test passes."""
    finished = subprocess.run(
        ["cargo", *command],
        cwd=REPOSITORY / "ingress",
        env={**os.environ, "CARGO_TARGET_DIR": str(REPOSITORY / "target" / "ingress")},
        capture_output=True,
        text=True,
    )
    if "no such command" in finished.stderr:
        pytest.skip(f"cargo {command[0]} is not installed")
    assert finished.returncode == 0, finished.stdout + finished.stderr
