"""Tests of kept steps: whole or absent, bounded, and by their inputs."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from training.retrain import step_cache
from training.retrain.step_cache import StepCache, StepResult

INPUTS = {"recipe": "a", "rows": 3}


def result(number: float = 1.0, rows: int = 4) -> StepResult:
    """A result with all kinds of content."""
    array = np.full((rows, 2), number, np.float32)
    return StepResult({"threshold": 0.5}, {"rows": array}, {"model.onnx": b"onnx"})


def test_result_is_found_by_its_inputs(tmp_path: Path) -> None:
    """Another process finds it, and other inputs or another step do not."""
    StepCache(tmp_path / "steps").keep("fit", INPUTS, result())

    again = StepCache(tmp_path / "steps")
    found = again.load("fit", INPUTS)
    assert found is not None
    assert found.facts == {"threshold": 0.5}
    assert found.files == {"model.onnx": b"onnx"}
    assert found.arrays["rows"].tolist() == [[1.0, 1.0]] * 4
    assert found.arrays["rows"].dtype == np.float32
    assert again.load("rows", INPUTS) is None
    assert again.load("fit", {**INPUTS, "rows": 4}) is None
    assert StepCache(None).load("fit", INPUTS) is None


@pytest.mark.parametrize("damage", ["rows.npy", "model.onnx", "facts.json"])
@pytest.mark.parametrize("content", [None, b"", b"other bytes"])
def test_damaged_result_counts_as_absent(
    damage: str, content: bytes | None, tmp_path: Path
) -> None:
    """A lost file and other bytes are both found."""
    StepCache(tmp_path).keep("fit", INPUTS, result())
    (path,) = tmp_path.glob(f"*/{damage}")
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert StepCache(tmp_path).load("fit", INPUTS) is None


def test_flipped_number_is_found(tmp_path: Path) -> None:
    """The array can be read, but is not what was kept."""
    StepCache(tmp_path).keep("fit", INPUTS, result())
    (path,) = tmp_path.glob("*/rows.npy")
    np.save(path, np.full((4, 2), 2.0, np.float32))
    assert StepCache(tmp_path).load("fit", INPUTS) is None


def test_oldest_results_go_first(tmp_path: Path) -> None:
    """The bound holds with the new result, and one above it is not kept."""
    cache = StepCache(tmp_path, bytes_max=2_500)
    for number in range(4):
        cache.keep("rows", {"number": number}, result(rows=100))
        (path,) = tmp_path.glob("*-*") if number == 0 else [max(tmp_path.iterdir(), key=_mtime)]
        os.utime(path, (number + time.time() - 100,) * 2)
    found = [cache.load("rows", {"number": number}) is not None for number in range(4)]
    assert found == [False, False, True, True]
    cache.keep("rows", {"number": 9}, result(rows=1_000))
    assert cache.load("rows", {"number": 9}) is None
    assert cache.load("rows", {"number": 3}) is not None


def _mtime(path: Path) -> float:
    return path.stat().st_mtime


def test_results_of_killed_runs_are_deleted_after_days(tmp_path: Path) -> None:
    """Also what was left half-written."""
    cache = StepCache(tmp_path)
    cache.keep("rows", {"number": 1}, result())
    (tmp_path / ".0123.part").mkdir()
    long_ago = time.time() - step_cache.DAYS_MAX * 86_400 - 1
    for path in tmp_path.iterdir():
        os.utime(path, (long_ago, long_ago))
    cache.keep("rows", {"number": 2}, result())
    assert len(list(tmp_path.iterdir())) == 1
    assert cache.load("rows", {"number": 2}) is not None


def test_ended_run_leaves_nothing(tmp_path: Path) -> None:
    """What it kept and what it loaded go; another run's results stay."""
    StepCache(tmp_path).keep("rows", {"number": 1}, result())
    StepCache(tmp_path).keep("rows", {"number": 2}, result())
    cache = StepCache(tmp_path)
    assert cache.load("rows", {"number": 1}) is not None
    cache.keep("fit", {"number": 1}, result())
    cache.forget_used()
    assert [path.name[:5] for path in tmp_path.iterdir()] == ["rows-"]
    assert cache.load("rows", {"number": 2}) is not None


def test_disk_that_refuses_stops_no_training(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "steps").write_bytes(b"")
    cache = StepCache(tmp_path / "steps")
    cache.keep("rows", INPUTS, result())
    assert cache.load("rows", INPUTS) is None
