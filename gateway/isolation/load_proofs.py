"""Results of probes on this host, stored on disk: a proof or a refusal of each version.

A proof is valid for one version, one onnxruntime and one host. A worker opens a version itself
only when there is a proof of it.
"""

import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from host.files import make_private_folder, replace_file
from host.onnx_runtime import onnxruntime

FORMAT = 2
"""Raised when probes check more: a proof of an earlier format is no proof, so versions are probed
again. 2: the score of a row does not depend on other rows."""

REFUSAL_VALID_S = 60.0
"""How long a refusal is valid. Within it all workers of the host share the result of one probe;
after it the version is probed again when it is deployed again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The result of one probe."""

    refused: str = ""
    """Why the version is refused; empty: it may be opened on this host."""
    load_ms: float = 0.0
    """Time to load the model file."""
    run_us: float = 0.0
    """Time to score one row, the fastest of five runs."""
    memory_mb: float = 0.0
    """Peak resident memory of the child, with some 60 MB of interpreter and onnxruntime."""
    unix_s: float = 0.0
    """When the probe ended."""
    host: str = ""
    """The host's fingerprint, see host_fingerprint."""
    format: int = FORMAT


class ProofStore:
    """A folder of proofs by version id, which the workers of a host share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "proofs"
        make_private_folder(self._folder)
        self._host = host_fingerprint()

    def read_proof(self, digest: str, unix_s: float) -> Proof | None:
        """Return the proof of version *digest*, or None when none is valid at *unix_s*."""
        try:
            fields = json.loads(self._path(digest).read_text(encoding="utf-8"))
            proof = Proof(**fields)
        except (OSError, ValueError, TypeError):
            return None
        if (proof.host, proof.format) != (self._host, FORMAT):
            return None
        return None if proof.refused and unix_s - proof.unix_s > REFUSAL_VALID_S else proof

    def save_proof(self, digest: str, proof: Proof) -> None:
        """Write *proof* atomically; OSError when the disk refuses."""
        replace_file(self._path(digest), json.dumps(asdict(proof)), durable=False)

    def for_this_host(self, **fields: object) -> Proof:
        """Return a proof with these fields and this host's fingerprint."""
        return Proof(host=self._host, **fields)  # type: ignore[arg-type]

    @contextmanager
    def probe_lock(self, digest: str) -> Iterator[bool]:
        """Try to take the host's lock on probing *digest*; yield whether this worker has it.

        The kernel releases the lock when its holder dies.
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
    """Return a name of what a proof depends on: this host, its processor and onnxruntime."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    processor_keys = ("model name", "flags", "Features")
    processor = sorted({line for line in text.splitlines() if line.startswith(processor_keys)})
    identity = "\n".join([platform.node(), platform.machine(), *processor])
    return f"{sha256(identity.encode()).hexdigest()[:16]}/onnxruntime-{onnxruntime.__version__}"
