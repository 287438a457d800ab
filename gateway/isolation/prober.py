"""Proves that a version can be opened on this host: the first opening happens in a child process.

When the child fails or dies, the version is refused and the reason says how. The loading of the
version waits for the proof; calls do not.
"""

import asyncio
import json
import logging
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.isolation.child_process import ChildProcess, ResourceLimits, describe_exit
from gateway.isolation.load_proofs import Proof, ProofStore
from gateway.isolation.packed_files import pack_files
from gateway.settings import Settings
from host.clock import Clock
from registry.types import VersionRefusedError

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.02
"""Pause between checks whether another worker of this host has probed the same version."""

REPORT_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeLimits:
    """Limits on one probe.

    seconds  from start to proof.
    run_ms   fastest run of one row.
    """

    resources: ResourceLimits
    seconds: float
    run_ms: int


def probe_limits_of(settings: Settings) -> ProbeLimits:
    """Return the limits in the settings probe_*."""
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
        try:
            report, code, timed_out = await self._run_child(digest, files)
        except OSError as error:
            raise VersionRefusedError(
                f"it could not be probed: {error}; it is tried again when it is deployed again"
            ) from error
        result = judge_report(report, code, self._limits, timed_out=timed_out)
        proof = self._proofs.for_this_host(unix_s=self._clock.unix_ns() / 1e9, **result)
        log.info("probed version=%s result=%s", digest[:16], result)
        # A SIGKILL from outside says more about the host than about the version: it is not saved.
        if timed_out or code != -signal.SIGKILL:
            try:
                self._proofs.save_proof(digest, proof)
            except OSError as error:
                log.warning("proof_not_saved version=%s error=%s", digest[:16], error)
        return proof

    async def _run_child(self, digest: str, files: Mapping[str, bytes]) -> tuple[bytes, int, bool]:
        """Run a probe; return its report, its exit code, and whether it was killed for its time."""
        self.children_started += 1
        files_fd = await asyncio.to_thread(pack_files, files)
        read_end, write_end = os.pipe()
        try:
            arguments = [
                f"--files-fd={files_fd}",
                f"--report-fd={write_end}",
                f"--digest={digest}",
            ]
            child = ChildProcess(
                "gateway.isolation.probe",
                [*self._limits.resources.to_arguments(), *arguments],
                (files_fd, write_end),
            )
            # Only the child holds the write end now, so the report ends when the child does.
            os.close(write_end)
            write_end = -1
            # A child that is late is killed, and so it is when this task is cancelled.
            try:
                done, _ = await asyncio.wait({child.exited}, timeout=self._limits.seconds)
            finally:
                child.kill()
            code = await child.exited
            os.set_blocking(read_end, False)
            return _read_report(read_end), code, not done
        finally:
            for descriptor in (files_fd, read_end, write_end):
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
    """Return the fields of a Proof from a probe's report and its exit. Pure.

    report     lines of JSON, the last of which may be cut off.
    code       as ChildProcess.exited.
    timed_out  the probe was killed because its time was over.
    """
    # The last whole line is the result, or the step in which the probe ended.
    last: dict[str, Any] = {}
    for line in report.splitlines():
        try:
            last = json.loads(line)
        except ValueError:
            break  # the probe died while it wrote the line
    doing = last.get("doing", "starting")
    resources = limits.resources
    # The probe came to a result of its own.
    if "refused" in last:
        return {"refused": f"{last['refused']} (in a child of at most {resources.memory_mb} MB)"}
    if "proved" in last:
        proved = dict(last["proved"])
        if proved["run_us"] > limits.run_ms * 1e3:
            return {
                "refused": f"one row took {proved['run_us'] / 1e3:,.0f} ms at best; "
                f"probe_run_ms_max={limits.run_ms} is the most"
            }
        return proved
    # It ended before it had one: the step and the kind of end are the reason.
    if timed_out:
        return {
            "refused": f"not done after {limits.seconds:g} s while {doing}; ended "
            f"(probe_s_max={limits.seconds:g})"
        }
    if code == -signal.SIGXCPU:
        return {
            "refused": f"used {resources.cpu_s} s of CPU while {doing}; ended "
            f"(probe_cpu_s_max={resources.cpu_s})"
        }
    return {
        "refused": f"its probe ended with {describe_exit(code)} while {doing}; no worker opened it"
    }
