"""Proves that a version can be opened on this host: the first opening happens in a child process.

When the child fails or dies, the version is refused and the reason says how. The loading of the
version waits for the proof; calls do not.
"""

import asyncio
import logging
import signal
from collections.abc import Mapping
from typing import Any

from gateway.isolation.load_proofs import Proof, ProofStore
from gateway.settings import Settings
from host.child_process import ResourceLimits
from host.clock import Clock
from host.probe import ProbeLimits, judge_report, run_probe
from registry.types import VersionRefusedError

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.02
"""Pause between checks whether another worker of this host has probed the same version."""

PROBE_MODULE = "gateway.isolation.probe"


class Prober:
    """Proves versions for one worker. Touched by the event loop's thread only."""

    def __init__(self, proofs: ProofStore, settings: Settings, clock: Clock) -> None:
        """Take the limits from the settings probe_*."""
        self._proofs = proofs
        self._limits = ProbeLimits(
            resources=ResourceLimits(
                memory_mb=settings.probe_memory_mb_max, cpu_s=settings.probe_cpu_s_max
            ),
            seconds=settings.probe_s_max,
        )
        self._run_ms_max = settings.probe_run_ms_max
        self._clock = clock
        self.children_started = 0
        """Probes started so far."""

    async def prove(self, digest: str, files: Mapping[str, bytes]) -> None:
        """Return once this host has a proof of the version; VersionRefusedError when it is refused.

        files  the version's files, whose signature and digests are verified already.
        """
        while True:
            if (known := self._read_proof(digest)) is not None:
                break
            with self._proofs.probe_lock(digest) as locked:
                if locked:
                    known = self._read_proof(digest) or await self._probe(digest, files)
                    break
            await asyncio.sleep(POLL_INTERVAL_S)
        if known.refused:
            raise VersionRefusedError(known.refused)

    def _read_proof(self, digest: str) -> Proof | None:
        return self._proofs.read_proof(digest, self._clock.unix_ns() / 1e9)

    async def _probe(self, digest: str, files: Mapping[str, bytes]) -> Proof:
        self.children_started += 1
        try:
            end = await run_probe(PROBE_MODULE, digest, files, self._limits)
        except OSError as error:
            raise VersionRefusedError(
                f"it could not be probed: {error}; it is tried again when it is deployed again"
            ) from error
        result = refuse_slow_row(judge_report(end, self._limits), self._run_ms_max)
        proof = self._proofs.for_this_host(unix_s=self._clock.unix_ns() / 1e9, **result)
        log.info("probed version=%s result=%s", digest[:16], result)
        # A SIGKILL from outside says more about the host than about the version: it is not saved.
        if end.timed_out or end.code != -signal.SIGKILL:
            try:
                self._proofs.save_proof(digest, proof)
            except OSError as error:
                log.warning("proof_not_saved version=%s error=%s", digest[:16], error)
        return proof


def refuse_slow_row(result: dict[str, Any], run_ms_max: int) -> dict[str, Any]:
    """Return *result*, or a refusal when the fastest run of one row took longer than the most."""
    if result.get("run_us", 0.0) <= run_ms_max * 1e3:
        return result
    return {
        "refused": f"one row took {result['run_us'] / 1e3:,.0f} ms at best; "
        f"probe_run_ms_max={run_ms_max} is the most"
    }
