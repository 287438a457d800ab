"""Tests of a child that trains: each way in which it ends has its sentence, and nothing is left."""

import asyncio
import os
import textwrap
import time
from pathlib import Path

import pytest

from host.processes import process_ids_of_session
from turnout.retraining.training_child import ChildEnd, TrainingLimits, run_child

pytestmark = pytest.mark.walk

PROGRAM = """
import argparse, os, sys, time
from turnout.retraining.child import confine_training
parser = argparse.ArgumentParser()
for name in ("parent", "memory-mb", "cpu-s", "log-fd"):
    parser.add_argument(f"--{name}", type=int, required=True)
parser.add_argument("command", nargs="+")
options = parser.parse_args()
confine_training(options.parent, options.memory_mb, options.cpu_s, options.log_fd)
print("session", os.getpid(), flush=True)
exec(options.command[0])
"""
"""A child with the limits of one that trains, which does what its argument says."""


class Printed:
    """What a child printed, up to 64 KiB, and how much it was in all."""

    def __init__(self) -> None:
        self.text = b""
        self.count = 0

    async def append(self, data: bytes) -> None:
        """Keep the next bytes."""
        self.text += data[: 65_536 - len(self.text)]
        self.count += len(data)


def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    limits: TrainingLimits,
    *,
    fence_after_s: float | None = None,
    without: tuple[str, ...] = (),
) -> tuple[ChildEnd, Printed]:
    """Run *code* in a child; return how it ended and what it printed."""
    # A program that is found by its name, as Turnout's own is.
    (tmp_path / "hostile_child.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path(__file__).parents[3]}")
    printed = Printed()

    async def act() -> ChildEnd:
        fenced = asyncio.Event()
        if fence_after_s is not None:
            asyncio.get_running_loop().call_later(fence_after_s, fenced.set)
        return await run_child(
            [textwrap.dedent(code)],
            limits,
            printed.append,
            fenced,
            program="hostile_child",
            without=without,
        )

    end = asyncio.run(act())
    # Whatever the child started has ended with it, if it came so far.
    if printed.text:
        assert process_ids_of_session(int(printed.text.split()[1])) == []
    return end, printed


@pytest.mark.parametrize(
    ("code", "limits", "words"),
    [
        ("while True: pass", TrainingLimits(seconds=1.0), "it was not done after 1 s"),
        ("while True: pass", TrainingLimits(cpu_s=1), "it used more than 1 s of CPU time"),
        (
            "bytearray(30 * 2**30)",
            TrainingLimits(memory_mb=1_024),
            "MemoryError",
        ),
        (
            "[os.fork() or (time.sleep(60), os._exit(0)) for _ in range(12)]; time.sleep(60)",
            TrainingLimits(processes=8),
            "it started ",
        ),
        ("os.kill(os.getpid(), 9)", TrainingLimits(), "it was killed (SIGKILL)"),
        ("os.kill(os.getpid(), 11)", TrainingLimits(), "it crashed with SIGSEGV"),
        ("sys.exit('no such column')", TrainingLimits(), "no such column"),
        ("pass", TrainingLimits(), ""),
    ],
)
def test_each_end_has_its_sentence(
    code: str,
    limits: TrainingLimits,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fit that never ends, eats memory, forks, is killed, crashes or fails."""
    end, _ = run(tmp_path, monkeypatch, code, limits)
    assert end.reason.startswith(words), end
    assert bool(end.reason) == bool(words)


def test_child_that_prints_without_end_neither_blocks_nor_fills_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its prints are handed on in parts, and it goes on while they are."""
    code = "for _ in range(1_000): print('x' * 65_535)"
    began = time.monotonic()
    end, printed = run(tmp_path, monkeypatch, code, TrainingLimits(seconds=20.0))
    assert end == ChildEnd(0, "")
    assert printed.count > 65_000_000
    assert time.monotonic() - began < 15.0


def test_fenced_child_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run was cancelled, or another trainer has it."""
    end, _ = run(
        tmp_path, monkeypatch, "time.sleep(60)", TrainingLimits(seconds=20.0), fence_after_s=0.5
    )
    assert end.reason == "the run was cancelled, or another trainer has it"


def test_child_has_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the variables of Turnout nor the one that the environment's token refers to."""
    monkeypatch.setenv("TURNOUT_TOKEN", "secret-1")
    monkeypatch.setenv("SHOP_REGISTRY_TOKEN", "secret-2")
    monkeypatch.setenv("SHOP_SOURCE", "needed")
    code = "print(sorted(name for name, value in os.environ.items() if 'secret' in value))"
    _, printed = run(
        tmp_path, monkeypatch, code, TrainingLimits(), without=("SHOP_REGISTRY_TOKEN",)
    )
    assert printed.text.splitlines()[1] == b"[]"
