"""Checks of a version's files before they are parsed: sizes, names, manifest and signature."""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from access.identities import is_actor
from features.canonical import canonical_json, sha256_hex
from registry.types import MODEL_NAME, VersionRefusedError

FORMAT = 1
MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
REQUIRED = ("model.onnx", "contract.json", "golden.npz", "reference.json", "card.json")

TOTAL_BYTES_MAX = 256 * 2**20
"""Largest total size of a version's files. A forest of 1,000 deep trees has about 100 MiB."""
MANIFEST_BYTES_MAX = 64 * 2**10
FILES_MAX = 32

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}(\.[A-Za-z0-9]{1,15})?")


def read_json(name: str, content: bytes) -> Any:  # noqa: ANN401  JSON is any value
    """Parse one JSON file.

    Raises VersionRefusedError when it is not JSON, or means different things to different readers:
    NaN, a number beyond a double such as 1e999, or one key twice.
    """
    try:
        return json.loads(
            content.decode(),
            parse_constant=_refuse_constant,
            parse_float=_parse_float,
            object_pairs_hook=_object_of,
        )
    except (ValueError, RecursionError) as error:
        raise VersionRefusedError(f"{name} ({len(content)} bytes) is not JSON: {error}") from error


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:80]} is larger than any double")
    return number


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return fields


def check_envelope(files: Mapping[str, bytes]) -> tuple[dict[str, Any], str]:
    """Check sizes and names, and return the manifest and the version's id (hex).

    Nothing but the manifest is parsed. Raises VersionRefusedError.
    """
    check_sizes(files)
    check_names(files)
    return read_manifest(files), sha256_hex(files[MANIFEST])


def check_sizes(files: Mapping[str, bytes]) -> None:
    """Refuse too many files, too large files and a too large manifest."""
    total = sum(map(len, files.values()))
    if total > TOTAL_BYTES_MAX or len(files) > FILES_MAX:
        raise VersionRefusedError(
            f"{len(files)} files of {total} bytes in all; a version has at most {FILES_MAX} files "
            f"and {TOTAL_BYTES_MAX} bytes"
        )
    if len(files.get(MANIFEST, b"")) > MANIFEST_BYTES_MAX:
        raise VersionRefusedError(
            f"{MANIFEST} has {len(files[MANIFEST])} bytes; the most is {MANIFEST_BYTES_MAX}"
        )


def check_names(names: Mapping[str, object]) -> None:
    """Refuse names that could be a path or a hidden file, and names that differ by case only."""
    refused = [name for name in names if not FILE_NAME.fullmatch(name)]
    if refused:
        raise VersionRefusedError(
            f"file name {refused[0][:80]!r} is not a plain name; files of a version are in one "
            f"folder and match {FILE_NAME.pattern}"
        )
    first_of: dict[str, str] = {}
    for name in names:
        other = first_of.setdefault(name.lower(), name)
        if other != name:
            raise VersionRefusedError(
                f"file names {other!r} and {name!r} differ by case only; a disk that ignores case "
                "would keep one of them. Rename one"
            )


def read_manifest(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the parsed manifest.

    Raises VersionRefusedError unless it is canonical, complete, and lists exactly the other files.
    """
    if MANIFEST not in files:
        raise VersionRefusedError(f"{MANIFEST} is missing; registry.bundle.seal_files writes it")
    manifest = read_json(MANIFEST, files[MANIFEST])
    # Every field must be there, with its type, in canonical spelling. A missing field or another
    # type raises inside.
    try:
        is_canonical = (
            manifest["format"] == FORMAT
            and canonical_json(manifest) == files[MANIFEST]
            and set(manifest) == {"format", "model", "author", "created_unix_ms", "files"}
            and MODEL_NAME.fullmatch(manifest["model"]) is not None
            and isinstance(manifest["author"], str)
            and is_actor(manifest["author"])
            and type(manifest["created_unix_ms"]) is int
            and 0 <= manifest["created_unix_ms"] < 2**53
            and all(
                set(entry) == {"sha256", "size"}
                and re.fullmatch(r"[0-9a-f]{64}", entry["sha256"])
                and type(entry["size"]) is int
                for entry in manifest["files"].values()
            )
        )
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise VersionRefusedError(f"{MANIFEST} is not a version's manifest: {error!r}") from error
    if not is_canonical:
        raise VersionRefusedError(
            f"{MANIFEST} is not the canonical manifest of format {FORMAT}; let "
            "registry.bundle.seal_files write it"
        )
    # The listed files and the files beside the manifest must be the same.
    check_names(manifest["files"])
    missing = [name for name in (*REQUIRED, *manifest["files"]) if name not in files]
    if missing:
        raise VersionRefusedError(f"{missing[0]} is missing from the version")
    # The manifest and its signature cannot be listed, because they have no digest of themselves.
    unlisted = set(files) - set(manifest["files"]) - {MANIFEST, SIGNATURE}
    listed_twice = {MANIFEST, SIGNATURE} & set(manifest["files"])
    if unlisted or listed_twice:
        raise VersionRefusedError(
            f"{min(unlisted or listed_twice)} does not belong to the version: {MANIFEST} lists "
            f"{sorted(manifest['files'])}"
        )
    return dict(manifest)


def check_signature(files: Mapping[str, bytes], trusted_key: bytes) -> None:
    """Refuse a version whose manifest is not signed by the trusted Ed25519 key (32 bytes)."""
    if SIGNATURE not in files:
        raise VersionRefusedError(f"{SIGNATURE} is missing; only the registry signs versions")
    signature = read_json(SIGNATURE, files[SIGNATURE])
    try:
        if canonical_json(signature) != files[SIGNATURE]:
            raise ValueError("not canonical JSON")  # noqa: TRY301  the except makes the refusal
        algorithm = signature["algorithm"]
        public_key = bytes.fromhex(signature["public_key"])
        signed = bytes.fromhex(signature["signature"])
    except (KeyError, TypeError, ValueError) as error:
        raise VersionRefusedError(f"{SIGNATURE} is not a signature: {error!r}") from error
    if algorithm != "ed25519" or public_key != trusted_key:
        raise VersionRefusedError(
            f"{SIGNATURE} is by {algorithm} key {public_key.hex()[:16]}; this registry's versions "
            f"are signed by ed25519 key {trusted_key.hex()[:16]}"
        )
    digest = hashlib.sha256(files[MANIFEST]).digest()
    try:
        Ed25519PublicKey.from_public_bytes(trusted_key).verify(signed, digest)
    except (InvalidSignature, ValueError) as error:
        raise VersionRefusedError(
            f"{SIGNATURE} does not sign this {MANIFEST} (SHA-256 {digest.hex()[:16]}): one of both "
            "was changed"
        ) from error


def check_digests(files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> None:
    """Refuse a file whose size or SHA-256 differs from the manifest."""
    for name, entry in manifest["files"].items():
        content = files[name]
        if len(content) != entry["size"]:
            raise VersionRefusedError(
                f"{name} has {len(content)} bytes; {MANIFEST} says {entry['size']}"
            )
        if sha256_hex(content) != entry["sha256"]:
            raise VersionRefusedError(
                f"{name} was changed: its SHA-256 is {sha256_hex(content)[:16]}, {MANIFEST} says "
                f"{entry['sha256'][:16]}"
            )
