"""Results of finished steps, kept by the digest of their inputs, so that a killed run goes on.

A result is a folder `<step>-<digest>` that appears by one rename: it is there as a whole or not at
all. No result is trusted without its checksums. The folder of a run is emptied when the run has
ended; what killed runs leave is bounded in bytes and in days.
"""

import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_hexdigest

from features.canonical import canonical_json, sha256_hex
from host.files import make_private_folder

BYTES_MAX = 2 * 2**30
"""Bytes of all results. The oldest are deleted first, and a larger one is not kept."""
DAYS_MAX = 7
FACTS = "facts.json"
ARRAY = ".npy"


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step made.

    facts   JSON values.
    arrays  name -> array of numbers.
    files   name -> content.
    """

    facts: dict[str, Any]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


class StepCache:
    """Results of steps in one folder. Several trainers may use it at once.

    folder     is made when the first result is kept; None keeps nothing.
    bytes_max  bytes of all results together.
    """

    def __init__(self, folder: Path | None, bytes_max: int = BYTES_MAX) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._used: list[Path] = []

    def load(self, step: str, inputs: Mapping[str, Any]) -> StepResult | None:
        """Return what *step* made of *inputs*, JSON values; None when that is not kept."""
        path = self._path(step, inputs)
        if path is None:
            return None
        # Another trainer may delete the folder meanwhile, and a disk may have lost a file.
        try:
            described = json.loads((path / FACTS).read_bytes())
            arrays, files = {}, {}
            for name, checksum in described["sums"].items():
                if name.endswith(ARRAY):
                    array = np.load(path / name, allow_pickle=False)
                    arrays[name.removesuffix(ARRAY)] = array
                    content: Any = np.ascontiguousarray(array).data.cast("B")
                else:
                    content = files[name] = (path / name).read_bytes()
                if xxh3_128_hexdigest(content) != checksum:
                    return None
            os.utime(path)
        except (OSError, EOFError, ValueError, KeyError):
            return None
        self._used.append(path)
        return StepResult(described["facts"], arrays, files)

    def keep(self, step: str, inputs: Mapping[str, Any], result: StepResult) -> None:
        """Keep what *step* made of *inputs*.

        Nothing is kept when the disk refuses or the result is larger than the bound: training goes
        on without it.
        """
        path = self._path(step, inputs)
        size = sum(array.nbytes for array in result.arrays.values())
        size += sum(map(len, result.files.values()))
        if path is None or size > self._bytes_max:
            return
        part = path.with_name(f".{secrets.token_hex(8)}.part")
        with suppress(OSError):
            make_private_folder(path.parent)
            self._delete_old(room=size)
            self._write(part, result)
            part.rename(path)
            self._used.append(path)
        shutil.rmtree(part, ignore_errors=True)

    def forget_used(self) -> None:
        """Delete every result that this object has kept or loaded."""
        for path in self._used:
            shutil.rmtree(path, ignore_errors=True)
        self._used.clear()

    def _path(self, step: str, inputs: Mapping[str, Any]) -> Path | None:
        if self._folder is None:
            return None
        return self._folder / f"{step}-{sha256_hex(canonical_json(dict(inputs)))}"

    def _write(self, part: Path, result: StepResult) -> None:
        part.mkdir(mode=0o700)
        sums = {}
        for name, array in result.arrays.items():
            whole = np.ascontiguousarray(array)
            np.save(part / f"{name}{ARRAY}", whole, allow_pickle=False)
            sums[f"{name}{ARRAY}"] = xxh3_128_hexdigest(whole.data.cast("B"))
        for name, content in result.files.items():
            (part / name).write_bytes(content)
            sums[name] = xxh3_128_hexdigest(content)
        (part / FACTS).write_bytes(canonical_json({"facts": result.facts, "sums": sums}))

    def _delete_old(self, *, room: int) -> None:
        """Delete what is older than DAYS_MAX, then the oldest until there is *room*, in bytes."""
        assert self._folder is not None
        entries = []
        for path in self._folder.iterdir():
            with suppress(OSError):
                size = sum(item.stat().st_size for item in path.iterdir())
                entries.append((path.stat().st_mtime, size, path))
        total, now = room + sum(size for _, size, _ in entries), time.time()
        for changed_s, size, path in sorted(entries):
            if total > self._bytes_max or now - changed_s > DAYS_MAX * 86_400:
                shutil.rmtree(path, ignore_errors=True)
                total -= size


NO_STEPS = StepCache(None)
"""Has and keeps no result, for a training that is to be repeated from its beginning."""
