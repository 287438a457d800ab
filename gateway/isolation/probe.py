"""`python -m gateway.isolation.probe`: opens a version for the first time on this host.

It runs in a child process (host.probe): it proves the version as registration does, and compares
native scoring with ONNX Runtime. It never outlives its worker.
"""

from gateway.models.native_scorer import choose_scorer
from host.probe import report_probe
from host.processes import peak_rss_bytes
from registry.bundle import verify_bundle
from registry.types import ScoringError, VersionRefusedError
from registry.version_proof import Report, prove_bundle


def probe_version(files: dict[str, bytes], digest: str, report: Report) -> None:
    """Do with the version what a worker does before it is READY, and report each step.

    Raises VersionRefusedError or ScoringError for a version that fails.
    """
    report(doing="verifying")
    bundle = verify_bundle(files, trusted_key=None, expected_digest=digest)
    proven = prove_bundle(bundle, report)
    report(doing="comparing native scoring with onnxruntime")
    choose_scorer(bundle, proven.session)
    memory_mb = round(peak_rss_bytes() / 2**20, 1)
    report(proved={"load_ms": proven.load_ms, "run_us": proven.run_us, "memory_mb": memory_mb})


if __name__ == "__main__":
    report_probe(
        "gateway.isolation.probe", __doc__, probe_version, (VersionRefusedError, ScoringError)
    )
