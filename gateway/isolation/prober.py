"""The first opening of a version happens in a throwaway child; what it died of is the reason.

Whoever asks waits on the loop; nobody who is served does.
"""

import asyncio
import json
import logging
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.clock import Clock
from gateway.isolation.child_process import ChildProcess, ResourceLimits, describe_exit
from gateway.isolation.load_proofs import Proof, ProofStore
from gateway.isolation.packed_files import pack_files
from gateway.settings import Settings
from registry.types import VersionRefusedError

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.02
"""Between looks whether another worker of this host is done with the same version."""

REPORT_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeLimits:
    """What a version may take to be proved."""

    resources: ResourceLimits
    seconds: float
    run_ms: int


def probe_limits_of(settings: Settings) -> ProbeLimits:
    """Return the limits that the settings ask for."""
    return ProbeLimits(
        resources=ResourceLimits(
            memory_mb=settings.probe_memory_mb_max, cpu_s=settings.probe_cpu_s_max
        ),
        seconds=settings.probe_s_max,
        run_ms=settings.probe_run_ms_max,
    )


class Prober:
    """Proves versions for one worker. Touched by the event loop's thread only."""

    def __init__(self, proofs: ProofStore, limits: ProbeLimits, clock: Clock) -> None:
        self._proofs = proofs
        self._limits = limits
        self._clock = clock
        self.children_started = 0
        """Children started so far."""

    async def prove(self, digest: str, files: Mapping[str, bytes]) -> None:
        """Return once this host has a proof of the version; VersionRefusedError when it fails it.

        files  verified already: signature and digests are the worker's business.
        """
        while True:
            if (known := self._read_proof(digest)) is not None:
                break
            with self._proofs.probe_lock(digest) as ours:
                if ours:
                    known = self._read_proof(digest) or await self._probe(digest, files)
                    break
            await asyncio.sleep(POLL_INTERVAL_S)
        if known.refused:
            raise VersionRefusedError(known.refused)

    def _read_proof(self, digest: str) -> Proof | None:
        return self._proofs.read_proof(digest, self._clock.unix_ns() / 1e9)

    async def _probe(self, digest: str, files: Mapping[str, bytes]) -> Proof:
        try:
            report, code, timed_out = await self._run_child(digest, files)
        except OSError as error:
            raise VersionRefusedError(
                f"it could not be probed: {error}; it is tried again when it is deployed again"
            ) from error
        found = judge_report(report, code, self._limits, timed_out=timed_out)
        proof = self._proofs.for_this_host(unix_s=self._clock.unix_ns() / 1e9, **found)
        log.info("probed version=%s found=%s", digest[:16], found)
        # A SIGKILL that was not ours says more about the host than about the version.
        if timed_out or code != -signal.SIGKILL:
            try:
                self._proofs.save_proof(digest, proof)
            except OSError as error:
                log.warning("proof_not_saved version=%s error=%s", digest[:16], error)
        return proof

    async def _run_child(self, digest: str, files: Mapping[str, bytes]) -> tuple[bytes, int, bool]:
        """Return what the child reported, its exit code, and whether we had to end it."""
        self.children_started += 1
        parcel = await asyncio.to_thread(pack_files, files)
        ours, theirs = os.pipe()
        try:
            arguments = [f"--files-fd={parcel}", f"--report-fd={theirs}", f"--digest={digest}"]
            program = ChildProcess(
                "gateway.isolation.probe",
                [*self._limits.resources.to_arguments(), *arguments],
                (parcel, theirs),
            )
            os.close(theirs)
            theirs = -1
            try:
                done, _ = await asyncio.wait({program.exited}, timeout=self._limits.seconds)
            finally:
                program.kill()  # at its end nothing happens; cancelled or late, it is over now
            code = await program.exited
            os.set_blocking(ours, False)
            return _read_report(ours), code, not done
        finally:
            for descriptor in (parcel, ours, theirs):
                if descriptor >= 0:
                    os.close(descriptor)


def _read_report(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, REPORT_BYTES_MAX)
    except BlockingIOError:
        return b""


def judge_report(
    report: bytes, code: int, limits: ProbeLimits, *, timed_out: bool
) -> dict[str, Any]:
    """Return Proof's fields from a child's report and its end. Pure."""
    last: dict[str, Any] = {}
    for line in report.splitlines():
        try:
            last = json.loads(line)
        except ValueError:
            break  # it died while writing
    doing = last.get("doing", "starting")
    bounds = limits.resources
    if "refused" in last:
        return {"refused": f"{last['refused']} (in a child of at most {bounds.memory_mb} MB)"}
    if "proved" in last:
        found = dict(last["proved"])
        if found["run_us"] > limits.run_ms * 1e3:
            return {
                "refused": f"one row took {found['run_us'] / 1e3:,.0f} ms at best; "
                f"probe_run_ms_max={limits.run_ms} is the most"
            }
        return found
    if timed_out:
        return {
            "refused": f"not done after {limits.seconds:g} s while {doing}; ended "
            f"(probe_s_max={limits.seconds:g})"
        }
    if code == -signal.SIGXCPU:
        return {
            "refused": f"used {bounds.cpu_s} s of CPU while {doing}; ended "
            f"(probe_cpu_s_max={bounds.cpu_s})"
        }
    return {
        "refused": f"its probe ended with {describe_exit(code)} while {doing}; no worker opened it"
    }
