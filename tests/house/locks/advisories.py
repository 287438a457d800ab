"""Asks a database for known vulnerabilities of what the lock files name.

    make advisories

The database is osv.dev, or one with its interface at OSV_URL. It is asked for each locked Python
package and each crate, and for a vulnerable version that everybody knows. A database that does not
know that one knows nothing, and then the answer is not "none".

Exit codes: 0: none is known, 1: some are, which it prints, 2: no database answers.
"""

import json
import os
import re
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
CRATE_LOCKS = ("ingress/crates.lock", "benchmarks/loadgen/crates.lock")
OSV_URL = "https://api.osv.dev"
TIMEOUT_S = 30
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", re.MULTILINE)


@dataclass(frozen=True)
class Locked:
    """One locked package."""

    ecosystem: str
    name: str
    version: str


KNOWN_BAD = Locked("PyPI", "jinja2", "2.4.1")
"""Has advisories since 2014."""


class NoDatabaseError(Exception):
    """No advisory database answers."""


def locked_packages() -> list[Locked]:
    """Return every package of the developers' lock file and every crate of the programs in Rust."""
    python = (REPOSITORY / "requirements-dev.lock").read_text(encoding="utf-8")
    crates = {
        Locked("crates.io", crate["name"], crate["version"])
        for lock_file in CRATE_LOCKS
        for crate in tomllib.loads((REPOSITORY / lock_file).read_text(encoding="utf-8"))["package"]
        if "checksum" in crate  # the program itself has none
    }
    return [Locked("PyPI", name, version) for name, version in PIN.findall(python)] + sorted(
        crates, key=lambda crate: (crate.name, crate.version)
    )


def ask(packages: Iterable[Locked], url: str) -> dict[Locked, list[str]]:
    """Return the ids of the advisories of each package that has any.

    Raises NoDatabaseError when the database does not answer or does not know KNOWN_BAD.
    """
    asked = [KNOWN_BAD, *packages]
    queries = [
        {
            "package": {"ecosystem": package.ecosystem, "name": package.name},
            "version": package.version,
        }
        for package in asked
    ]
    request = urllib.request.Request(
        f"{url}/v1/querybatch",
        json.dumps({"queries": queries}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as page:
            results = json.load(page)["results"]
        found = {
            package: [advisory["id"] for advisory in result.get("vulns", [])]
            for package, result in zip(asked, results, strict=True)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoDatabaseError(f"{url} does not answer: {error}") from error
    if not found.pop(KNOWN_BAD):
        raise NoDatabaseError(f"{url} answers, and knows nothing of {KNOWN_BAD}")
    return {package: ids for package, ids in found.items() if ids}


def main() -> int:
    """Print what is known and return the exit code."""
    packages = locked_packages()
    try:
        found = ask(packages, os.environ.get("OSV_URL", OSV_URL))
    except NoDatabaseError as error:
        sys.stdout.write(f"No advisory database: {error}. NOTHING WAS CHECKED.\n")
        return 2
    for package, ids in found.items():
        sys.stdout.write(f"{package.name} {package.version}: {', '.join(ids)}\n")
    sys.stdout.write(f"{len(packages)} packages and crates asked, {len(found)} with advisories.\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
