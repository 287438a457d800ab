"""`python -m training churn ...` (or another of RECIPES): one version, registered or kept."""

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from features.errors import SourceError
from features.offline import OfflineStore
from registry import bundle
from registry.bundle import Bundle
from registry.client import RegistryClient
from registry.types import RegistryError, VersionRefusedError
from training import champion
from training.artifacts.card import commit_of
from training.errors import ConversionError, GateFailedError, RecipeError
from training.recipes import churn, credit, nba, propensity
from training.train import train_version

RECIPES = {one.MODEL: one for one in (churn, propensity, credit, nba)}

REPORTED_ERRORS = (
    ConversionError,
    GateFailedError,
    RecipeError,
    RegistryError,
    SourceError,
    VersionRefusedError,
)
"""What is the recipe's, the data's or the registry's fault: told in one line, exit code 1."""


def training_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; *words* None: the program's own."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("model", choices=list(RECIPES))
    parser.add_argument("--setting", choices=churn.SETTINGS, default="candidate")
    parser.add_argument("--store", type=Path, required=True, help="the offline store's folder")
    parser.add_argument("--as-of-ms", type=int, help="features as known then; default: now")
    parser.add_argument("--registry", help="host:port; register there, as --author")
    parser.add_argument("--author", help="who answers for this version")
    parser.add_argument("--token", help="where the registry asks for one")
    parser.add_argument(
        "--champion",
        default="production",
        help='a label to compare with, "production" (default) or "none"',
    )
    parser.add_argument("--out", type=Path, help="keep the sealed version in this new folder")
    parsed = parser.parse_args(argv)
    if not parsed.author or not (parsed.registry or parsed.out):
        parser.error("say --author, and --registry or --out (or both)")
    if parsed.setting not in RECIPES[parsed.model].SETTINGS:
        parser.error(f"{parsed.model} has settings {list(RECIPES[parsed.model].SETTINGS)}")
    return parsed


async def run_training(options: argparse.Namespace) -> str:
    """Do what was asked; returns the last line to say."""
    if options.registry is None:
        return _store_version(options, await asyncio.to_thread(make_version, options, None))
    async with RegistryClient(options.registry, options.author, options.token) as client:
        rival = await _champion(client, options.model, options.champion)
        sealed = await asyncio.to_thread(make_version, options, rival)
        version = await client.register(options.model, sealed)
    said = _store_version(options, sealed) if options.out else ""
    return f"{said}registered {options.model} {version.label} ({version.digest[:16]})\n"


def make_version(options: argparse.Namespace, champion: Bundle | None) -> dict[str, bytes]:
    """Train as asked, telling each step as it begins; returns the sealed version."""
    now_ms = options.as_of_ms or time.time_ns() // 1_000_000
    made = train_version(
        RECIPES[options.model].recipe(options.setting),
        OfflineStore(options.store),
        RECIPES[options.model].labels(now_ms=now_ms),
        champion=champion,
        commit=commit_of(Path(__file__).parent),
        progress=lambda step: _print_line(f"{step} ...\n"),
    )
    for name, estimate in made.metrics.items():
        if estimate.value is not None:
            _print_line(
                f"{name:>15} {estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]\n"
            )
    return made.sealed(author=options.author, created_unix_ms=time.time_ns() // 1_000_000)


def _store_version(options: argparse.Namespace, sealed: Mapping[str, bytes]) -> str:
    bundle.write_version_folder(options.out, sealed)
    return f"kept {len(sealed)} files in {options.out}\n"


async def _champion(client: RegistryClient, model: str, which: str) -> Bundle | None:
    if which == "none":
        return None
    if which == "production":
        return await champion.fetch_production(client, model)
    return await champion.fetch_registered(client, model, which)


def _print_line(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def main() -> int:
    """Exit code 0: a version was made; 1: it was refused, and why was told."""
    try:
        _print_line(asyncio.run(run_training(training_arguments())))
    except REPORTED_ERRORS as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
