"""What Rust files look like: the same bounds as Python's, and nothing unsafe outside of sys/."""

import os
import re
import shutil
import subprocess

import pytest

from tests.house.sources import REPOSITORY, fail_on_breaches, location
from tests.house.test_shape import FILE_LINES_MAX

WRITTEN = sorted(
    path
    for crate in ("ingress", "benchmarks/loadgen")
    for path in (REPOSITORY / crate).rglob("*.rs")
    if "target" not in path.parts
)
SYS = REPOSITORY / "ingress" / "src" / "sys"
UNSAFE = re.compile(r"^(?!\s*//).*\bunsafe\b")


def test_a_rust_file_fits_the_eye() -> None:
    """400 lines a file here too."""
    assert len(WRITTEN) > 20
    fail_on_breaches(
        [
            f"{location(path)}: {lines} lines, {FILE_LINES_MAX} at most"
            for path in WRITTEN
            if (lines := path.read_text(encoding="utf-8").count("\n")) > FILE_LINES_MAX
        ]
    )


def test_unsafe_is_in_one_folder() -> None:
    """`unsafe` in ingress/src/sys/ alone, each block beside its reason; clippy looks at those."""
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
def test_the_native_door_is_clean(command: list[str]) -> None:
    """Clippy and rustfmt have nothing to say; its own tests pass."""
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
