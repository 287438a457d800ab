"""What this host knows of versions it has opened in a child: a proof or a refusal, on disk.

A proof holds for one version, one onnxruntime and one host. With it a worker opens the version
itself; without it, never.
"""

import fcntl
import json
import os
import platform
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import onnxruntime

FORMAT = 1

REFUSAL_VALID_S = 60.0
"""A refusal is believed this long: every worker of the host hears of one crash, and a version that
was refused on a bad day is probed anew when it is asked for again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What came of one probe."""

    refused: str = ""
    """Why; empty: it may be opened here."""
    load_ms: float = 0.0
    run_us: float = 0.0
    """One row, the fastest of five."""
    memory_mb: float = 0.0
    """Most that the child had resident, interpreter and onnxruntime included (some 60)."""
    unix_s: float = 0.0
    host: str = ""
    format: int = FORMAT


class ProofStore:
    """A folder of proofs by version id, shared by the workers of a host."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "proofs"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._host = host_fingerprint()

    def read_proof(self, digest: str, unix_s: float) -> Proof | None:
        """Return what is known here of *digest*; None: nothing that still holds."""
        try:
            found = json.loads(self._path(digest).read_text(encoding="utf-8"))
            proof = Proof(**found)
        except (OSError, ValueError, TypeError):
            return None
        if (proof.host, proof.format) != (self._host, FORMAT):
            return None
        return None if proof.refused and unix_s - proof.unix_s > REFUSAL_VALID_S else proof

    def save_proof(self, digest: str, proof: Proof) -> None:
        """Keep *proof*, whole or not at all. OSError when the disk refuses."""
        place = self._path(digest)
        beside = place.with_name(f".{place.name}.{os.getpid()}.{secrets.token_hex(4)}")
        beside.write_text(json.dumps(asdict(proof)), encoding="utf-8")
        beside.replace(place)

    def for_this_host(self, **found: object) -> Proof:
        """Return a proof that names this host."""
        return Proof(host=self._host, **found)  # type: ignore[arg-type]

    @contextmanager
    def probe_lock(self, digest: str) -> Iterator[bool]:
        """Hold the only right of this host to probe *digest*, or yield False: another has it.

        The kernel gives it back when the holder dies.
        """
        descriptor = os.open(self._folder / f"{digest}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.json"


def host_fingerprint() -> str:
    """Name what a proof depends on: this host, its processor, and onnxruntime."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    kept = ("model name", "flags", "Features")
    processor = sorted({line for line in text.splitlines() if line.startswith(kept)})
    named = "\n".join([platform.node(), platform.machine(), *processor])
    return f"{sha256(named.encode()).hexdigest()[:16]}/onnxruntime-{onnxruntime.__version__}"
