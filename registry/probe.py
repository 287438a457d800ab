"""`python -m registry.probe`: parses and opens a version that is to be registered.

It runs in a child process (host.probe), because the files are what their author wrote.
"""

from host.probe import report_probe
from registry.bundle import verify_bundle
from registry.types import ScoringError, VersionRefusedError
from registry.version_proof import Report, check_new_version, prove_bundle


def examine_new_version(files: dict[str, bytes], digest: str, report: Report) -> None:
    """Check everything that a gateway will check, except the signature, which is made later.

    Raises VersionRefusedError or ScoringError for a version that fails.
    """
    report(doing="reading the files")
    bundle = verify_bundle(files, trusted_key=None, expected_digest=digest)
    check_new_version(bundle)
    prove_bundle(bundle, report)
    report(proved={})


if __name__ == "__main__":
    report_probe(
        "registry.probe", __doc__, examine_new_version, (VersionRefusedError, ScoringError)
    )
