"""`python -m training MODEL` trains one version, and registers it or writes it to a folder."""

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from access.peer_tls import PeerError
from features.errors import SourceError
from features.offline import OfflineStore
from host.git import commit_of
from registry import bundle
from registry.bundle import Bundle
from registry.client import RegistryClient
from registry.types import RegistryError, VersionRefusedError
from training import champion
from training.errors import ConversionError, GateFailedError, JoinError, RecipeError
from training.recipes import churn, credit, nba, propensity
from training.train import train_version

RECIPES = {recipes.MODEL: recipes for recipes in (churn, propensity, credit, nba)}

REPORTED_ERRORS = (
    ConversionError,
    GateFailedError,
    JoinError,
    PeerError,
    RecipeError,
    RegistryError,
    SourceError,
    VersionRefusedError,
)
"""Errors of the recipe, the data or the registry. They print one line and give exit code 1."""


def training_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse *argv*, or the program's own arguments if it is None. Exit with 2 if they are wrong."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("model", choices=list(RECIPES))
    parser.add_argument("--setting", choices=churn.SETTINGS, default="candidate")
    parser.add_argument("--store", type=Path, required=True, help="folder of the offline store")
    parser.add_argument(
        "--as-of-ms", type=int, help="instant of the features, Unix ms; the default is now"
    )
    parser.add_argument("--registry", help="host:port of the registry that gets the version")
    parser.add_argument("--author", help="name of the person who answers for the version")
    parser.add_argument("--token", help="bearer token, if the registry has an identities file")
    parser.add_argument(
        "--registry-certificate", type=Path, help="PEM file that the registry must prove to have"
    )
    parser.add_argument(
        "--champion",
        default="production",
        help='label of the version to compare with, "production" (default) or "none"',
    )
    parser.add_argument("--out", type=Path, help="new folder to write the sealed version to")
    options = parser.parse_args(argv)
    if not options.author or not (options.registry or options.out):
        parser.error("give --author, and --registry or --out or both")
    if options.setting not in RECIPES[options.model].SETTINGS:
        parser.error(f"{options.model} has settings {list(RECIPES[options.model].SETTINGS)}")
    return options


async def run_training(options: argparse.Namespace) -> str:
    """Train one version, store or register it, and return the lines that report it."""
    if options.registry is None:
        return _store_version(options, await asyncio.to_thread(make_version, options, None))
    async with RegistryClient(
        options.registry,
        options.author,
        options.token,
        certificate=options.registry_certificate,
    ) as client:
        champion_bundle = await _fetch_champion(client, options.model, options.champion)
        sealed = await asyncio.to_thread(make_version, options, champion_bundle)
        version = await client.register(options.model, sealed)
    report = _store_version(options, sealed) if options.out else ""
    return f"{report}registered {options.model} {version.label} ({version.digest[:16]})\n"


def make_version(options: argparse.Namespace, champion: Bundle | None) -> dict[str, bytes]:
    """Train a version, print each step and the metrics, and return the sealed files."""
    now_ms = options.as_of_ms or time.time_ns() // 1_000_000
    version = train_version(
        RECIPES[options.model].recipe(options.setting),
        OfflineStore(options.store),
        RECIPES[options.model].labels(now_ms=now_ms),
        champion=champion,
        commit=commit_of(Path(__file__).parent),
        progress=lambda step: _print_line(f"{step} ...\n"),
    )
    for name, estimate in version.metrics.items():
        if estimate.value is not None:
            _print_line(
                f"{name:>15} {estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]\n"
            )
    return version.sealed(author=options.author, created_unix_ms=time.time_ns() // 1_000_000)


def _store_version(options: argparse.Namespace, sealed: Mapping[str, bytes]) -> str:
    bundle.write_version_folder(options.out, sealed)
    return f"wrote {len(sealed)} files to {options.out}\n"


async def _fetch_champion(client: RegistryClient, model: str, choice: str) -> Bundle | None:
    if choice == "none":
        return None
    if choice == "production":
        return await champion.fetch_production(client, model)
    return await champion.fetch_registered(client, model, choice)


def _print_line(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def main() -> int:
    """Train one version; return exit code 0, or 1 after one of REPORTED_ERRORS."""
    try:
        _print_line(asyncio.run(run_training(training_arguments())))
    except REPORTED_ERRORS as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
